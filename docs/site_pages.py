"""Bring pages from outside ``docs/`` into the site: the README as its home, and those of rooms.

MkDocs calls ``on_files`` and ``on_page_markdown`` (``hooks`` in ``mkdocs.yml``). Links between
pages are written for the repository; here they are turned into links of the site. A link to a file
that is no page, such as a program, becomes its name.
"""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent

# Path in the repository -> path in the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "calibration/README.md": "calibration.md",
    "camera_demo/README.md": "camera_demo.md",
    "examples/README.md": "examples.md",
    "jetson/README.md": "jetson.md",
}
PICTURES = {"camera_demo/page.jpg": "pictures/page.jpg"}

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```", re.M | re.S)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages and pictures to the site's files."""
    for source, target in {**PAGES, **PICTURES}.items():
        if (ROOT / source).is_file():
            files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn the links of a page into links of the site."""
    target = page.file.src_uri
    source = {to: path for path, to in PAGES.items()}.get(target, f"docs/{target}")

    def turned(match: re.Match[str]) -> str:
        mark, text, link = match.groups()
        path, hash_, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link) or not path:
            return match[0]
        place = place_in_site(source, path)
        if place is None:
            return str(text)
        relative = os.path.relpath(place, os.path.dirname(target) or ".")
        return f"{mark}[{text}]({relative}{hash_}{anchor})"

    parts: list[str] = []
    end = 0
    for block in _CODE.finditer(markdown):
        parts += [_LINK.sub(turned, markdown[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, _LINK.sub(turned, markdown[end:])])


def place_in_site(source: str, link: str) -> str | None:
    """Return where a link of a page leads in the site; None if the site does not have the file.

    Parameters
    ----------
    source : the page's path in the repository.
    link : a relative path, from that page.
    """
    path = os.path.normpath(os.path.join(os.path.dirname(source), link))
    if path in PAGES:
        return PAGES[path]
    if path in PICTURES:
        return PICTURES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return None
