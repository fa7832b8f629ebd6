"""Define the options of ``segment``: what is written and shown, the picture, the sources."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from edgeseg.cli import console
from edgeseg.cli.json_report import STDOUT
from edgeseg.cli.parsing import parse_bytes, parse_duration
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.video import LiveOptions, Playback, View

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi")


class Mode(str, Enum):
    """List what a picture can show."""

    overlay = "overlay"
    mask = "mask"
    side_by_side = "side-by-side"
    edges = "edges"
    blend = "blend"


class Legend(str, Enum):
    """List where the names of the classes can stand."""

    auto = "auto"
    off = "off"
    right = "right"


class PaletteName(str, Enum):
    """List the palettes."""

    official = "official"
    colour_blind = "colour-blind"


def _lines_target(path: Path | None) -> Path | None:
    """Print results on standard error if standard output takes a line per frame."""
    if path == STDOUT:
        console.print_to_stderr(True)
    return path


@dataclass(frozen=True)
class OutputOptions:
    """Hold the options about what is written and shown.

    Attributes
    ----------
    out : video or picture to write.
    stream : address to send a live stream to.
    masks : folder for the label maps.
    frames_json : file for a line of JSON per frame.
    show : show a window.
    page : address of the live page, ``PORT`` or ``HOST:PORT``.
    token : what a viewer of the page must know.
    max_frames : number of frames after which the run stops.
    split_every : length of the files of a video that is written as a series of them.
    keep : room for all files of the series.
    """

    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="Write the frames painted with class colours: .mp4 or .mkv (H.264), .webm or "
            ".avi; a picture such as .png if the source is one picture. With several sources: "
            "out-{source}.mp4.",
        ),
    ] = None
    stream: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Send the painted frames as live H.264: rtsp:// to a server that takes streams, "
            "udp://HOST:PORT, srt:// or rtmp://.",
        ),
    ] = None
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Write one label map per frame: a palette PNG of class ids."
        ),
    ] = None
    frames_json: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|-",
            callback=_lines_target,
            help="Write one line of JSON per frame: time, age, share of each class.",
        ),
    ] = None
    show: Annotated[bool, typer.Option("--show", help="Show a window; q closes it.")] = False
    page: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            help="Show the result on a page for browsers: --page 8000 is http://127.0.0.1:8000, "
            "0.0.0.0:8000 is for other machines, too. Needs the extra web.",
        ),
    ] = None
    token: Annotated[
        str | None,
        typer.Option(
            help="Secret that viewers of --page need; made up for a page that other machines "
            "can reach."
        ),
    ] = None
    max_frames: Annotated[
        int | None, typer.Option(min=1, help="Stop after this number of frames.")
    ] = None
    split_every: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Begin a new video after this time, such as 10m: out.mp4 becomes files named "
            "with the time of their start.",
        ),
    ] = None
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Delete the oldest of the files of --split-every if they take more room than "
            "this, such as 20GB.",
        ),
    ] = None

    def require_any(self, json_file: Path | None) -> None:
        """Raise ``InputError`` if nothing would come of the run."""
        live = self.show or self.page or self.stream
        if not (self.out or self.masks or self.frames_json or live or json_file):
            raise InputError(
                "nothing to do with the result",
                hint="Give -o VIDEO, --masks FOLDER, --show, --page PORT or --json FILE.",
            )

    def is_video(self) -> bool:
        """Return whether a video is to be written."""
        return self.out is not None and self.out.suffix.lower() in VIDEO_SUFFIXES

    def series(self) -> dict[str, float]:
        """Return the arguments of ``VideoSink`` about a series of files.

        Raises
        ------
        InputError : a value cannot be read, or there is no video to split.
        """
        series: dict[str, float] = {}
        if self.split_every is not None:
            series["split_every_s"] = parse_duration(self.split_every, "--split-every")
        if self.keep is not None:
            series["keep_bytes"] = parse_bytes(self.keep, "--keep")
        if series and not self.is_video():
            raise InputError("there is no video to split", hint="Give -o VIDEO, too.")
        return series


@dataclass(frozen=True)
class PictureOptions:
    """Hold the options about how the pictures look.

    Attributes
    ----------
    view : what the picture shows.
    alpha : weight of the class colours.
    classes : names or ids of the classes to paint, with commas between them.
    legend : where the names of the classes stand.
    hud : write frames per second, age and engine into the picture.
    palette : the colours.
    smooth : hold labels still where nothing moves.
    flicker : measure how many labels change where nothing moves.
    """

    HELP_PANEL: ClassVar[str] = "Picture"

    view: Annotated[Mode, typer.Option(case_sensitive=False, help="What the picture shows.")] = (
        Mode.overlay
    )
    alpha: Annotated[
        float, typer.Option(min=0, max=1, help="Weight of the class colours over the frame.")
    ] = 0.5
    classes: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Paint only these classes, by name or id."),
    ] = None
    legend: Annotated[
        Legend,
        typer.Option(
            case_sensitive=False,
            help="auto: the classes in the picture, in a corner. right: all, beside the picture.",
        ),
    ] = Legend.auto
    hud: Annotated[
        bool, typer.Option(help="Write frames per second, age and engine into the picture.")
    ] = True
    palette: Annotated[
        PaletteName, typer.Option(case_sensitive=False, help="Colours of the classes.")
    ] = PaletteName.official
    smooth: Annotated[
        bool,
        typer.Option("--smooth", help="Hold labels still where nothing moves: less flicker."),
    ] = False
    flicker: Annotated[
        bool,
        typer.Option(
            "--flicker", help="Measure the share of labels that change where nothing moves."
        ),
    ] = False

    def as_view(self) -> "View":
        """Return the view of the pipeline.

        Raises
        ------
        InputError : a value cannot be read.
        """
        from edgeseg.video import View

        classes = None if self.classes is None else tuple(self.classes.split(","))
        return View(
            mode=self.view.value,
            alpha=self.alpha,
            classes=classes,
            legend=self.legend.value,
            hud=self.hud,
            palette=self.palette.value,
        )


@dataclass(frozen=True)
class SourceOptions:
    """Hold the options about which frames are read, and about cameras that stop.

    Attributes
    ----------
    start : where to start in a recording.
    duration : how much to read.
    every : read only every Nth frame.
    realtime : play a recording at its own speed, as a camera would.
    stall : time without a frame after which a camera counts as lost.
    give_up : time after which a lost camera ends the run.
    wait : wait for a camera that is not there yet.
    """

    HELP_PANEL: ClassVar[str] = "Source"

    start: Annotated[
        str | None, typer.Option(metavar="TIME", help="Where to start in a video, such as 90s.")
    ] = None
    duration: Annotated[
        str | None, typer.Option(metavar="TIME", help="How much to read, such as 10m.")
    ] = None
    every: Annotated[int, typer.Option(min=1, help="Read only every Nth frame.")] = 1
    realtime: Annotated[
        bool,
        typer.Option("--realtime", help="Play a video at its own speed, as a camera would."),
    ] = False
    stall: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="A camera without a frame for this time is opened again."
        ),
    ] = "2s"
    give_up: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="End when a camera stays away for this time. By default it is waited for.",
        ),
    ] = None
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for a camera that is not there yet.")
    ] = False

    def as_live(self) -> "LiveOptions":
        """Return the options of live sources.

        Raises
        ------
        InputError : a value cannot be read.
        """
        from edgeseg.video import LiveOptions

        give_up_s = None if self.give_up is None else parse_duration(self.give_up, "--give-up")
        return LiveOptions(parse_duration(self.stall, "--stall"), give_up_s, self.wait)

    def as_playback(self) -> "Playback":
        """Return which frames are read, and how fast.

        Raises
        ------
        InputError : a value cannot be read.
        """
        from edgeseg.video import Playback

        return Playback(
            start_s=0.0 if self.start is None else parse_duration(self.start, "--start"),
            duration_s=None
            if self.duration is None
            else parse_duration(self.duration, "--duration"),
            every=self.every,
            realtime=self.realtime,
        )
