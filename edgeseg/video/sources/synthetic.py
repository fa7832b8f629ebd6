"""Open synthetic drives as sources: as a recording, or as a live camera."""

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from edgeseg.data.synthetic import SyntheticDrive, parse_address
from edgeseg.errors import InputError
from edgeseg.video.frames import Frame, Source, VideoInfo
from edgeseg.video.sources.reconnect import LiveOptions, LiveSource, connect_first
from edgeseg.video.sources.synthetic_camera import Device, parse_faults

# Keys of a live camera; the others are those of a drive.
_LIVE_KEYS = ("realtime", "counter", "fault")

_DEFAULT = LiveOptions()


def open_synthetic(uri: str, live: LiveOptions = _DEFAULT) -> Source:
    """Open a synthetic drive.

    Parameters
    ----------
    uri : ``synthetic://`` with the keys of ``edgeseg.data.synthetic.parse_address``. Three more
        make it a live camera: ``realtime=1``, which plays at the drive's ``fps``, without end if
        there is no ``length``; ``counter=1``, which draws the number of ``counter_at`` into each
        frame; and ``fault=KIND@SECONDS:FOR_SECONDS``, or several with commas between them. The
        kinds are ``stall``, ``drop``, ``resize`` and ``unplug``.
    live : what to do if the live camera gives no frames.

    Raises
    ------
    InputError : the address is wrong, or a value is out of range.

    Examples
    --------
    >>> with open_synthetic("synthetic://?size=64x48&realtime=1&fps=60&length=3") as source:
    ...     source.info.live
    True
    """
    address, keys = _split(uri)
    drive = parse_address(address)
    if not keys.is_realtime:
        return _recording(drive)

    faults = parse_faults(keys.faults)
    frames = len(drive) if keys.has_length else None
    device = Device(drive, frames, has_counter=keys.has_counter, faults=faults, live=live)
    camera = connect_first(device.connect, live)
    return LiveSource(camera, device.connect, live, is_present=device.is_present)


def _recording(drive: SyntheticDrive) -> Source:
    """Return the source of a drive that is read as fast as it is wanted."""
    height, width = drive.size

    def frames() -> Iterator[Frame]:
        for index in range(len(drive)):
            sample = drive.frame(index)
            yield Frame(index, sample.image, sample.name, index / drive.fps)

    info = VideoInfo(width, height, fps=drive.fps, frames=len(drive), live=False)
    return Source(info, frames())


@dataclass(frozen=True)
class _Keys:
    """Hold the keys of an address that make a drive a live camera."""

    is_realtime: bool
    has_counter: bool
    has_length: bool
    faults: str


def _split(uri: str) -> tuple[str, _Keys]:
    """Take the keys of a live camera out of an address; return the rest, and them."""
    head, _, query = uri.partition("?")
    others: list[str] = []
    values: dict[str, str] = {}
    for part in query.split("&"):
        key, _, value = part.partition("=")
        if key not in _LIVE_KEYS:
            others.append(part)
        elif key in values:
            raise InputError(
                "synthetic drive: address", got=f"{key} twice", expected="each key once"
            )
        else:
            values[key] = unquote(value)

    address = f"{head}?{'&'.join(others)}" if others != [""] else head
    if "realtime" not in values and values:
        raise InputError(
            f"synthetic drive: {', '.join(values)}",
            got="a drive without realtime=1",
            expected="a live camera, such as synthetic://?realtime=1&counter=1",
        )
    keys = _Keys(
        is_realtime=_switch(values, "realtime"),
        has_counter=_switch(values, "counter"),
        has_length=any(part.startswith("length=") for part in others),
        faults=values.get("fault", ""),
    )
    return address, keys


def _switch(values: dict[str, str], key: str) -> bool:
    """Return the value of a key that is 0 or 1; 0 if it is absent."""
    value = values.get(key, "0")
    if value not in ("0", "1"):
        raise InputError(f"synthetic drive: {key}", got=repr(value), expected="0 or 1")
    return value == "1"
