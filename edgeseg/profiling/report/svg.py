"""Draw plots as SVG: axes with round numbers, and marks in the page's colours.

A plot is 420 units wide, so that its letters can be read on a telephone, too. Colours are classes
of the page's style: ``s0`` to ``s4`` are the engines.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH = 420
SERIES = 5  # colours of the style


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers from ``low`` to ``high``.

    Parameters
    ----------
    low, high : the ends.
    count : about how many.

    Examples
    --------
    >>> ticks(0, 9.5)
    [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    span = high - low
    if span <= 0:
        return [low]
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 10) + 0.0 for index in range(first, last + 1)]


@dataclass(frozen=True)
class Scale:
    """Map values to units of the plot.

    Attributes
    ----------
    low, high : values at the ends.
    start, end : units at the ends.

    Examples
    --------
    >>> Scale(0, 10, 50, 150)(2.5)
    75.0
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the place of a value; values outside are put at the ends.

        Parameters
        ----------
        value : the value.
        """
        span = self.high - self.low
        share = 0.0 if span == 0 else (value - self.low) / span
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


@dataclass
class Plot:
    """Collect the elements of one plot.

    Attributes
    ----------
    height : its height in units.
    label : what it shows, for those who do not see it.
    parts : the elements.
    """

    height: float
    label: str
    parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, text: str, css: str = "", anchor: str = "start") -> None:
        """Write a text.

        Parameters
        ----------
        x, y : the place.
        text : the text.
        css : classes of the style.
        anchor : ``start``, ``middle`` or ``end``.
        """
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(text)}'
            "</text>"
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, css: str) -> None:
        """Draw a line.

        Parameters
        ----------
        x1, y1, x2, y2 : its ends.
        css : classes of the style.
        """
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'
        )

    def bar(self, x: float, y: float, width: float, height: float, css: str, title: str) -> None:
        """Draw a rectangle with a title that a pointer shows.

        Parameters
        ----------
        x, y, width, height : the rectangle.
        css : classes of the style.
        title : its title.
        """
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" '
            f'class="{css}"><title>{escape(title)}</title></rect>'
        )

    def path(self, points: Sequence[tuple[float, float]], css: str) -> None:
        """Draw a line through points.

        Parameters
        ----------
        points : the points (x, y).
        css : classes of the style.
        """
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{places}" class="path {css}"/>')

    def dot(self, x: float, y: float, css: str, title: str) -> None:
        """Draw a dot with a title.

        Parameters
        ----------
        x, y : its place.
        css : classes of the style.
        title : its title.
        """
        self.parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="{css}"><title>{escape(title)}</title>'
            "</circle>"
        )

    def x_axis(self, scale: Scale, top: float, bottom: float, title: str) -> None:
        """Draw grid lines, numbers and the title of the horizontal axis.

        Parameters
        ----------
        scale : of the axis.
        top, bottom : ends of the grid lines.
        title : what the axis measures, with its unit.
        """
        for value in ticks(scale.low, scale.high):
            x = scale(value)
            self.line(x, top, x, bottom, "grid")
            self.text(x, bottom + 14, f"{value:g}", "tick", "middle")
        self.text((scale.start + scale.end) / 2, bottom + 30, title, "title", "middle")

    def y_axis(self, scale: Scale, left: float, right: float, title: str) -> None:
        """Draw grid lines, numbers and, above them, the title of the vertical axis.

        Parameters
        ----------
        scale : of the axis.
        left, right : ends of the grid lines.
        title : what the axis measures, with its unit.
        """
        for value in ticks(scale.low, scale.high):
            y = scale(value)
            self.line(left, y, right, y, "grid")
            self.text(left - 5, y + 4, f"{value:g}", "tick", "end")
        self.text(4, min(scale.start, scale.end) - 10, title, "title")

    def svg(self) -> str:
        """Return the plot."""
        inside = "".join(self.parts)
        return (
            f'<svg viewBox="0 0 {WIDTH} {self.height:.0f}" role="img" '
            f'aria-label="{escape(self.label)}">{inside}</svg>'
        )


def series(index: int) -> str:
    """Return the class of an engine's colour.

    Parameters
    ----------
    index : number of the engine.
    """
    return f"s{index % SERIES}"
