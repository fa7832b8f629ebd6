"""Make the picture of the demo's README: start the demo, open its page in Chromium, take a picture.

    python -m camera_demo.screenshot [camera_demo/page.jpg]

Needs playwright (the extra dev) and a Chromium: Debian's, or one that playwright installed.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

OUT = Path(__file__).parent / "page.jpg"
WIDTH = 1280
HEIGHT = 800


def main() -> None:
    """Take the picture."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    command = [sys.executable, "-u", "-m", "camera_demo", "--page", "0"]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert demo.stdout is not None
        url = ""
        for line in demo.stdout:
            if found := re.search(r"http://\S+", line):
                url = found[0]
            if "labels by" in line:
                break
        take(url, out)
    finally:
        demo.kill()
        demo.communicate()
    print(f"wrote {out}")


def take(url: str, out: Path) -> None:
    """Take a picture of a page that has shown some labelled frames."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(url)
        page.wait_for_timeout(8000)
        page.screenshot(path=out, type="jpeg", quality=88)
        browser.close()


if __name__ == "__main__":
    main()
