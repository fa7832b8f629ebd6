"""Fill the template of the page: no script, font or picture from elsewhere."""

import json
from importlib.resources import files
from typing import Any

from edgeseg.errors import MissingDependencyError
from edgeseg.profiling.report import plots
from edgeseg.profiling.report.figures import look_up, marked, pointer, shown
from edgeseg.profiling.report.svg import series
from edgeseg.profiling.report.verdict import short_names

# What a strict server may send with the page.
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)


def require_jinja() -> None:
    """Raise an error unless the package that fills the template is installed.

    Raises
    ------
    MissingDependencyError : it is not.
    """
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "a report needs jinja2", hint="Install it: pip install 'edgeseg[report]'"
        ) from error


def render(facts: dict[str, Any], pictures: dict[str, str]) -> str:
    """Return the page.

    Parameters
    ----------
    facts : every figure.
    pictures : data addresses of the pictures, by name.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def number(how: str, *keys: str | int) -> Markup:
        return Markup(marked(facts, pointer(*keys), how))

    def has(*keys: str | int) -> bool:
        return look_up(facts, pointer(*keys)) is not None

    def plot(name: str, *arguments: Any) -> Markup:
        draw = getattr(plots, name)
        return Markup(draw(*(arguments or (facts,))))

    def text(name: str) -> str:
        return files(__package__).joinpath(name).read_text(encoding="utf-8")

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(text("page.html.j2"))
    return template.render(
        facts=facts,
        comparison=facts["comparison"],
        engines=facts["comparison"]["engines"],
        pictures=pictures,
        policy=POLICY,
        style=Markup(text("page.css")),
        script=Markup(text("page.js")),
        embedded=Markup(_embedded(facts)),
        number=number,
        has=has,
        plot=plot,
        series=series,
        shown=shown,
        shade=_shade,
        names=short_names(facts["comparison"]["engines"]),
    )


def _embedded(facts: dict[str, Any]) -> str:
    """Return the facts as JSON that cannot end its element."""
    text = json.dumps(facts, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _shade(change: float, is_diagonal: bool) -> str:
    """Return the class of a cell of the confusion changes: bad or good, in four strengths."""
    points = abs(100 * change)
    steps = (0.05, 0.25, 1.0, 3.0)
    strength = sum(points >= step for step in steps)
    if not strength:
        return "c0"
    is_good = (change > 0) == is_diagonal
    return f"{'good' if is_good else 'bad'}{strength}"
