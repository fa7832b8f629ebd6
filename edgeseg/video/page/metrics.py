"""What machines read: metrics in Prometheus' text format, and whether frames arrive."""

import time
from collections.abc import Iterable, Mapping

from edgeseg.video.page.hub import Hub
from edgeseg.video.page.protocol import Shot, class_shares, lost_s

_SILENT_S = 10.0  # without any result for so long, the pipeline hangs

_Sample = tuple[Mapping[str, str], float]


def metrics_text(hub: Hub) -> str:
    """Return the metrics of the run in Prometheus' text format.

    Parameters
    ----------
    hub : has the newest results.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> print(metrics_text(Hub(CAMVID_11, ["camera0"], ["enet"])).splitlines()[2])
    edgeseg_page_viewers 0
    """
    shots = hub.shots()
    names = hub.labels.names
    lines = [
        *_family("page_viewers", "gauge", "Connections of the live page.", [({}, hub.listeners)]),
        *_family("page_encoded_total", "counter", "Messages encoded.", [({}, hub.encoded)]),
        *_family("page_drawn_total", "counter", "Overlays drawn.", [({}, hub.drawn)]),
    ]

    # One value for each source.
    for name, kind, text, value in _EACH_SOURCE:
        samples: list[_Sample] = []
        for shot in shots:
            number = value(shot)
            if number is not None:
                samples.append(({"source": shot.source}, number))
        lines += _family(name, kind, text, samples)

    # One value for each source and class.
    shares: list[_Sample] = []
    for shot in shots:
        present = class_shares(shot.output.labels, len(names))
        for class_name, share in zip(names, present, strict=True):
            shares.append(({"source": shot.source, "class": class_name}, share))
    lines += _family("class_share_ratio", "gauge", "Share of the pixels of a class.", shares)
    return "\n".join(lines) + "\n"


def health(hub: Hub) -> tuple[bool, str]:
    """Return whether frames of all sources arrive, and one line that says so or says why not.

    Parameters
    ----------
    hub : has the newest results.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> health(Hub(CAMVID_11, ["camera0"], ["enet"]))
    (False, 'camera0: no frame yet')
    """
    problems: list[str] = []
    for name in hub.sources:
        shot = hub.newest(name)
        if shot is None:
            problems.append(f"{name}: no frame yet")
            continue

        lost = lost_s(shot.output)
        silent_s = time.perf_counter() - shot.received_s
        if lost is not None:
            problems.append(f"{name}: no signal for {lost + silent_s:.0f} s")
        elif silent_s > _SILENT_S:
            problems.append(f"{name}: no result for {silent_s:.0f} s")

    if problems:
        return False, "; ".join(problems)
    return True, "ok"


def _family(name: str, kind: str, text: str, samples: Iterable[_Sample]) -> list[str]:
    """Return the lines of one metric; none if it has no samples."""
    lines: list[str] = []
    for labels, value in samples:
        pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        braces = f"{{{pairs}}}" if pairs else ""
        lines.append(f"edgeseg_{name}{braces} {value:.10g}")
    if lines:
        lines = [f"# HELP edgeseg_{name} {text}", f"# TYPE edgeseg_{name} {kind}", *lines]
    return lines


def _escaped(text: str) -> str:
    """Return the value of a label with the escapes of the format."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _seconds(milliseconds: float | None) -> float | None:
    """Return milliseconds as seconds, which Prometheus uses for all times."""
    return None if milliseconds is None else milliseconds / 1e3


def _is_up(shot: Shot) -> float:
    """Return 1 if the source gives frames, else 0."""
    return 0.0 if lost_s(shot.output) is not None else 1.0


# Name, kind, help and value.
_EACH_SOURCE = (
    ("source_up", "gauge", "1 if the source gives frames.", _is_up),
    ("frames_total", "counter", "Results so far.", lambda shot: shot.serial),
    (
        "dropped_frames_total",
        "counter",
        "Frames that the source skipped.",
        lambda shot: shot.output.status.dropped,
    ),
    ("fps", "gauge", "Frames per second.", lambda shot: shot.fps),
    (
        "frame_age_seconds",
        "gauge",
        "Time since the newest frame was captured.",
        lambda shot: _seconds(shot.age_ms),
    ),
    (
        "network_seconds",
        "gauge",
        "Time of the network for the newest frame.",
        lambda shot: _seconds(shot.output.status.network_ms),
    ),
    (
        "temperature_celsius",
        "gauge",
        "Temperature of the hottest processor.",
        lambda shot: shot.output.status.temperature_c,
    ),
    ("power_watts", "gauge", "Power of the device.", lambda shot: shot.output.status.watts),
    (
        "flicker_ratio",
        "gauge",
        "Share of labels that change while the picture does not.",
        lambda shot: shot.output.status.flicker,
    ),
)
