"""Open what `segment` writes and shows: videos, masks, lines of JSON, windows, the live page."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.cli.console import escape, stdout
from edgeseg.cli.video_options import OutputOptions
from edgeseg.errors import InputError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeseg.reporter import Reporter
    from edgeseg.spec import LabelSpace
    from edgeseg.video import Painter, Sink, Source, View

PLACEHOLDER = "{source}"


def open_sinks(
    options: OutputOptions,
    source: "Source",
    labels: "LabelSpace",
    engines: "Sequence[str]",
    view: "View",
    reporter: "Reporter",
) -> "list[Sink]":
    """Open the outputs; if one fails, remove those opened before it.

    Parameters
    ----------
    options : what is wanted.
    source : what is read; it gives sizes, rates and names.
    labels : classes of the engine.
    engines : names of the engines, for the page.
    view : how the pictures look; it gives their size.
    reporter : receives notes and the address of the page.

    Raises
    ------
    InputError : an option contradicts the source.
    OutputError : an output cannot be written.
    """
    from edgeseg.video import FramesJsonSink, ImageFolderSink, Painter

    sinks: list[Sink] = []
    try:
        if options.out is not None:
            sizes = Painter(labels, view).picture_size
            sinks.append(_picture_or_video(options, source, sizes, reporter))
        if options.stream is not None:
            sinks.append(_stream(options.stream, source, Painter(labels, view), reporter))
        if options.masks is not None:
            sinks.append(ImageFolderSink(options.masks, labels))
        if options.frames_json is not None:
            sinks.append(FramesJsonSink(options.frames_json, labels))
        if options.show:
            sinks.append(_windows(source))
        if options.page is not None:
            sinks.append(_page(options, source, labels, engines, reporter))
    except BaseException:
        for sink in sinks:
            sink.abort()
        raise
    return sinks


def _picture_or_video(
    options: OutputOptions,
    source: "Source",
    picture_size: "Callable[[tuple[int, int]], tuple[int, int]]",
    reporter: "Reporter",
) -> "Sink":
    """Open the picture, the video, or one video per source."""
    from edgeseg.video import BySource, PictureSink, VideoSink
    from edgeseg.video.parts import source_infos, source_names

    out = options.out
    assert out is not None
    if source.info.frames == 1 and not options.is_video():
        return PictureSink(out)

    series = options.series()
    paths = out_paths(out, source_names(source))
    videos: list[Sink] = []
    try:
        for path, info in zip(paths, source_infos(source), strict=True):
            height, width = picture_size((info.height, info.width))
            info = replace(info, width=width, height=height)
            # A service that starts again must not overwrite what its camera recorded before.
            if info.live and "split_every_s" not in series:
                path = _free(path)
            videos.append(
                VideoSink(
                    path,
                    info,
                    split_every_s=series.get("split_every_s"),
                    keep_bytes=series.get("keep_bytes"),
                    reporter=reporter,
                )
            )
    except BaseException:
        for video in videos:
            video.abort()
        raise
    return videos[0] if len(videos) == 1 else BySource(videos)


def out_paths(out: Path, names: "Sequence[str]") -> list[Path]:
    """Return the path of the video of each source.

    Parameters
    ----------
    out : the path that the user gave; ``{source}`` in it is the name of the source.
    names : names of the sources.

    Raises
    ------
    InputError : several sources, and one path for all.

    Examples
    --------
    >>> [path.name for path in out_paths(Path("out-{source}.mp4"), ["front", "rear"])]
    ['out-front.mp4', 'out-rear.mp4']
    """
    if len(names) > 1 and PLACEHOLDER not in out.name:
        raise InputError(
            f"{out}: is one video for {len(names)} sources",
            expected="one video for each",
            hint=f"Give -o {out.stem}-{PLACEHOLDER}{out.suffix}.",
        )
    return [out.with_name(out.name.replace(PLACEHOLDER, name)) for name in names]


def _free(path: Path) -> Path:
    """Return the path, with the time of now in its name if there is such a file."""
    from datetime import datetime

    from edgeseg.video.segments import Segments

    if not path.exists():
        return path
    free = Segments(path).at_clock(datetime.now())
    stdout().print(
        escape(f"{path}: exists, and a recording of a camera overwrites nothing; writing {free}"),
        soft_wrap=True,
        highlight=False,
    )
    return free


def _stream(address: str, source: "Source", painter: "Painter", reporter: "Reporter") -> "Sink":
    """Connect the live stream; only one source has a place in it."""
    from edgeseg.video.stream_sink import StreamSink

    if source.count > 1:
        raise InputError(
            f"--stream sends one source, and there are {source.count}",
            hint="Start one edgeseg per source, or use --page, which shows all.",
        )
    height, width = painter.picture_size((source.info.height, source.info.width))
    return StreamSink(address, replace(source.info, width=width, height=height), reporter)


def _windows(source: "Source") -> "Sink":
    """Open one window per source."""
    from edgeseg.video import BySource, WindowSink
    from edgeseg.video.parts import source_names

    if source.count == 1:
        return WindowSink()
    return BySource([WindowSink(f"edgeseg: {name}") for name in source_names(source)])


def _page(
    options: OutputOptions,
    source: "Source",
    labels: "LabelSpace",
    engines: "Sequence[str]",
    reporter: "Reporter",
) -> "Sink":
    """Start the live page."""
    from edgeseg.video.page import PageSink, new_token
    from edgeseg.video.page.access import is_loopback
    from edgeseg.video.parts import source_names

    assert options.page is not None
    host, port = parse_address(options.page)
    token = options.token
    if token is None and not is_loopback(host):
        token = new_token()
    names = source_names(source)
    return PageSink(labels, host, port, token, names, engines, reporter)


def parse_address(text: str) -> tuple[str, int]:
    """Parse the address of the live page.

    Parameters
    ----------
    text : ``PORT`` or ``HOST:PORT``.

    Returns
    -------
    Host and port; the host is 127.0.0.1 if there is none.

    Raises
    ------
    InputError : the text is no such address.

    Examples
    --------
    >>> parse_address("8000"), parse_address("0.0.0.0:80"), parse_address("[::1]:8000")
    (('127.0.0.1', 8000), ('0.0.0.0', 80), ('::1', 8000))
    """
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) < 65536):
        raise InputError(
            "--page: not an address",
            got=repr(text),
            expected="a port such as 8000, or HOST:PORT such as 0.0.0.0:8000",
        )
    return host.strip("[]") or "127.0.0.1", int(port)


def require_outputs_differ(options: OutputOptions, json_file: Path | None) -> None:
    """Check that no two outputs are one file.

    Raises
    ------
    OutputError : two outputs are one file, or both are standard output.
    """
    named = {"-o": options.out, "--frames-json": options.frames_json, "--json": json_file}
    seen: dict[Path, str] = {}
    for name, path in named.items():
        if path is None:
            continue
        key = path if path == Path("-") else path.resolve()
        if key in seen:
            raise OutputError(f"{path}: is given to {seen[key]} and to {name}")
        seen[key] = name
