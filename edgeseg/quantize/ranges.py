"""Ranges of activations for INT8: how large |x| a tensor's scale must still hold, by four methods; files and a cache.

Quantization is symmetric: ``scale = amax / 127``, values beyond ``amax`` are clipped. The methods trade clipping
against rounding: ``minmax`` never clips, ``percentile`` clips a fixed share, ``entropy`` and ``mse`` look for the
threshold that loses least. All are computed from one histogram a tensor (``edgeseg.quantize.histograms``).
"""

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import onnx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeseg.errors import InputError, OutputError, did_you_mean
from edgeseg.files import atomic_path, require_writable, write_json
from edgeseg.graph.passes import fold_batchnorm
from edgeseg.quantize.calibration_set import CalibrationSet
from edgeseg.quantize.histograms import BINS, Statistics, collect
from edgeseg.spec import first_problem
from edgeseg.types import Float, Image, Vector

__all__ = [
    "METHODS", "Ranges", "Statistics", "belonging", "cached_ranges", "cached_statistics", "collect", "fitting_ranges",
    "ranges", "read_ranges", "require_method", "write_ranges",
]  # fmt: skip

Counts = npt.NDArray[np.int64]

METHODS = ("minmax", "percentile", "entropy", "mse")
PERCENTILE = 99.99
STATISTICS_FORMAT = 1  # raise it when what is collected changes: older caches are then left alone
DEAD_AMAX = 1e-4  # of a tensor that was always zero: scale 8e-7, still a float16
_MSE_REACH, _MSE_STEPS, _MSE_REFINE = 512.0, 128, 16  # candidates from max / 512 to max, 5 % apart, then refined twice


class Ranges(BaseModel):
    """``amax[tensor]``, the largest |x| a tensor's scale holds, and what it was found with.

    ``notes`` says of single tensors what is odd about them. ``set_description`` is for people; what counts is
    ``set_digest``. ``percentile`` belongs to that method.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal[1] = 1
    method: str
    percentile: float | None = None
    bits: int = Field(ge=2, le=16)
    frames: int = Field(ge=1)
    network_sha256: str = ""
    set_digest: str = ""
    set_description: str = ""
    amax: dict[str, Annotated[float, Field(gt=0)]]
    notes: dict[str, str] = {}


def require_method(method: str, percentile: float = PERCENTILE) -> None:
    """Raise ``InputError`` for an unknown method or an impossible percentile."""
    if method not in METHODS:
        raise InputError(
            "calibration: unknown method",
            got=repr(method),
            expected=f"one of {', '.join(METHODS)}",
            hint=did_you_mean(method, METHODS),
        )
    if not 0 < percentile <= 100:
        raise InputError("calibration: percentile", got=percentile, expected="more than 0, at most 100")


def ranges(statistics: Statistics, method: str, *, percentile: float = PERCENTILE, bits: int = 8) -> Ranges:
    """The range of every tensor by one of ``METHODS``, for symmetric quantization to ``bits``.

    A tensor that was zero throughout gets ``DEAD_AMAX`` and a note. Raises what ``require_method`` does.
    """
    require_method(method, percentile)
    amax, notes = {}, {}
    for row, tensor in enumerate(statistics.tensors):
        largest, width = float(statistics.largest[row]), float(statistics.top[row]) / BINS
        if largest == 0.0:
            amax[tensor], notes[tensor] = DEAD_AMAX, "zero on every calibration frame"
            continue
        histogram = statistics.histogram[row, : min(int(largest / width) + 1, BINS)]
        if method == "percentile":
            found = percentile_amax(histogram, width, int(statistics.zeros[row]), percentile)
            if found == 0.0:
                notes[tensor] = f"over {percentile} % of it is zero: its maximum was taken"
        elif method == "entropy":
            found = entropy_amax(histogram, width, levels=1 << (bits - 1))
        else:
            found = mse_amax(histogram, width, largest, qmax=(1 << (bits - 1)) - 1) if method == "mse" else largest
        amax[tensor] = min(found, largest) or largest
    share = percentile if method == "percentile" else None
    return Ranges(method=method, percentile=share, bits=bits, frames=statistics.frames, amax=amax, notes=notes)


def percentile_amax(histogram: Counts, width: float, zeros: int, percentile: float) -> float:
    """The value that ``percentile`` % of all |x|, zeros included, do not exceed; linear within a bin."""
    target = percentile / 100 * (int(histogram.sum()) + zeros)
    if target <= zeros:
        return 0.0
    below = zeros + np.concatenate([[0], np.cumsum(histogram)])
    place = int(np.searchsorted(below, target, side="left")) - 1  # the bin the target falls into; never an empty one
    place = min(place, len(histogram) - 1)
    return float((place + (target - below[place]) / histogram[place]) * width)


def entropy_amax(histogram: Counts, width: float, levels: int = 128) -> float:
    """The threshold whose quantized distribution is nearest to the true one by Kullback-Leibler divergence.

    Source: S. Migacz, "8-bit inference with TensorRT", GTC 2017. For every threshold of some number of bins: P is
    those bins with what lies beyond added to the last; Q is those bins (nothing added) shared out over ``levels`` equal
    stretches, each stretch's sum spread evenly over its bins that are not empty. Values that are exactly zero are not
    in the histogram: quantization keeps them. Only thresholds whose last bin is not empty are tried, so that Q is 0
    only where P is.

    With S, n the sum and the count of non-empty bins of a stretch, all of it follows from running sums:
    KL = [sum p log p] - [sum over stretches of S log(S / n) + beyond * log(S_last / n_last)] + normalisation.
    """
    counts = histogram.astype(np.float64)
    ends = np.flatnonzero(histogram[levels - 1 :]) + levels  # numbers of bins kept
    if not len(ends):
        return float(len(histogram) * width)
    total = counts.sum()
    sums = np.concatenate([[0.0], np.cumsum(counts)])
    filled = np.concatenate([[0], np.cumsum(histogram > 0)])
    own = np.concatenate([[0.0], np.cumsum(_x_log_x(counts))])
    edges = -(-np.arange(levels + 1) * ends[:, None] // levels)
    stretch, bins = np.diff(sums[edges], axis=1), np.diff(filled[edges], axis=1)
    kept, beyond, last = sums[ends], total - sums[ends], counts[ends - 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.where(stretch > 0, np.log(stretch / bins), 0.0)  # log of Q before normalisation
    entropy_p = own[ends - 1] + _x_log_x(last + beyond)
    cross = (stretch * level).sum(axis=1) + beyond * level[:, -1]
    divergence = (entropy_p - cross) / total - np.log(total) + np.log(kept)
    best = int(len(ends) - 1 - np.argmin(divergence[::-1]))  # of equals the widest
    return float(ends[best] * width)


def _x_log_x(values: Vector) -> Vector:
    return values * np.log(np.where(values > 0, values, 1.0))


def mse_amax(histogram: Counts, width: float, largest: float, qmax: int = 127) -> float:
    """The threshold with the smallest expected squared error of rounding and clipping, at most ``largest``."""
    candidates = np.geomspace(largest / _MSE_REACH, largest, _MSE_STEPS)
    for _ in range(3):
        errors = squared_error(histogram, width, candidates, qmax)
        best = int(np.argmin(errors))
        low, high = candidates[max(best - 1, 0)], candidates[min(best + 1, len(candidates) - 1)]
        found = float(candidates[best])
        candidates = np.linspace(low, high, _MSE_REFINE)
    return found


def squared_error(histogram: Counts, width: float, amax: Vector, qmax: int = 127) -> Vector:
    """Sum of squared errors of symmetric quantization for every candidate: (candidates,) float64.

    A bin's values are taken as uniform over it, and the error is integrated exactly. In units of the step ``s = amax /
    qmax``, the error at u is ``(u - q)^2`` with ``q = min(round(u), qmax)``; its integral from 0 is
    ``q / 12 + (u - q)^3 / 3``.
    """
    edges = np.arange(len(histogram) + 1) * width
    step = amax / qmax
    u = edges / step[:, None]
    q = np.minimum(np.rint(u), qmax)
    off = u - q
    integral = q / 12 + off * off * off / 3
    return np.asarray(step**3 / width * (np.diff(integral, axis=1) @ histogram), np.float64)


def write_ranges(path: Path, found: Ranges) -> Path:
    """Write ranges as JSON, whole or not at all."""
    return write_json(path, found.model_dump(mode="json"))


def read_ranges(path: Path) -> Ranges:
    """Read ranges. Raises ``InputError`` where the file is missing or is not one of ranges."""
    try:
        return Ranges.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError("no such file of ranges", got=repr(str(path)), hint="Make one: `calibrate()`.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read", got=error.strerror) from error
    except ValidationError as error:
        raise InputError(f"{path}: not a file of ranges", got=first_problem(error)) from error


def fitting_ranges(
    path: Path, network_sha256: str, set_digest: str | None = None, tensors: Sequence[str] = ()
) -> tuple[Ranges | None, str]:
    """The ranges of a file if they are this net's (and this set's, if one is given), or ``None`` and why not.

    Ranges of another net or set look plausible and cost accuracy: they are never used, and the reason is to be shown.
    """
    found = read_ranges(path)
    missing = [name for name in tensors if name not in found.amax]
    if found.network_sha256 != network_sha256:
        reason = f"belongs to another net (sha256 {found.network_sha256[:12]}, not {network_sha256[:12]})"
    elif set_digest is not None and found.set_digest != set_digest:
        reason = f"belongs to another calibration set ({found.set_description or found.set_digest[:12]})"
    elif missing:
        reason = f"lacks {len(missing)} of {len(tensors)} activations, {missing[0]!r} for one"
    else:
        return found, ""
    return None, f"{path}: {reason}; it is not used"


def cached_ranges(
    model: onnx.ModelProto,
    network_sha256: str,
    tensors: Sequence[str],
    calibration_set: CalibrationSet,
    method: str,
    to_input: Callable[[Image], Float],
    folder: Path | None = None,
    *,
    percentile: float = PERCENTILE,
    bits: int = 8,
    on_frame: Callable[[int], None] | None = None,
) -> tuple[Ranges, bool]:
    """The ranges of a set, and whether they come from statistics collected before; see ``cached_statistics``."""
    require_method(method, percentile)  # before minutes of collecting
    statistics, from_cache = cached_statistics(
        model, network_sha256, tensors, calibration_set, to_input, folder, on_frame=on_frame
    )
    found = ranges(statistics, method, percentile=percentile, bits=bits)
    return belonging(found, network_sha256, calibration_set), from_cache


def belonging(found: Ranges, network_sha256: str, calibration_set: CalibrationSet) -> Ranges:
    """The ranges with the net and the set they were found with written in."""
    facts = {
        "network_sha256": network_sha256,
        "set_digest": calibration_set.digest,
        "set_description": calibration_set.describe(),
    }
    return found.model_copy(update=facts)


def cached_statistics(
    model: onnx.ModelProto,
    network_sha256: str,
    tensors: Sequence[str],
    calibration_set: CalibrationSet,
    to_input: Callable[[Image], Float],
    folder: Path | None = None,
    *,
    collected: Statistics | None = None,
    on_frame: Callable[[int], None] | None = None,
) -> tuple[Statistics, bool]:
    """The statistics of ``tensors`` on a set, and whether they were found in ``folder``; they serve every method.

    The key is everything they depend on: the net's hash and how it is folded (``FOLD_VERSION``), the tensors, the
    frames' hashes, and what ``to_input`` makes of the first frame, in which size, mean, std, scale and colour order
    show. ``folder``: the user's cache unless given. ``collected`` is kept where they were collected by other means
    (``edgeseg.quantize.calibration_check.check.settle``).
    """
    names = tuple(dict.fromkeys(tensors))
    first = to_input(next(iter(calibration_set.images())))
    key = _key(network_sha256, calibration_set.digest, names, first)
    path = (folder if folder is not None else _cache_folder()) / f"{key[:32]}.npz"
    found = _load(path, key, names) if collected is None else None
    if found is not None:
        return found, True
    try:
        require_writable(path)  # before minutes of collecting
        images = map(to_input, calibration_set.images())
        found = collect(model, names, images, on_frame=on_frame) if collected is None else collected
        _save(path, key, found)
    except OutputError as error:
        hint = "Set EDGESEG_CACHE to a folder that can be written."
        raise OutputError(error.what, got=error.got, expected=error.expected, hint=hint) from error
    return found, False


def _cache_folder() -> Path:
    from edgeseg.files import cache_folder

    return cache_folder() / "ranges"


def _key(network_sha256: str, set_digest: str, tensors: Sequence[str], first: Float) -> str:
    versions = [str(STATISTICS_FORMAT), str(fold_batchnorm.FOLD_VERSION), str(BINS)]
    facts = [*versions, network_sha256, set_digest, json.dumps(list(tensors))]
    digest = hashlib.sha256("\n".join([*facts, str(first.shape), str(first.dtype)]).encode())
    digest.update(np.ascontiguousarray(first).data)
    return digest.hexdigest()


_FIELDS = ("minimum", "maximum", "top", "elements", "zeros", "histogram")


def _save(path: Path, key: str, statistics: Statistics) -> None:
    arrays = {name: getattr(statistics, name) for name in _FIELDS}
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, key=np.array(key), frames=np.array(statistics.frames), **arrays)


def _load(path: Path, key: str, tensors: tuple[str, ...]) -> Statistics | None:
    """The statistics in a file, or ``None`` where there is none, or it is damaged or another key's."""
    try:
        content = io.BytesIO(path.read_bytes())  # NumPy leaves a damaged file open
        with np.load(content, allow_pickle=False) as data:
            if str(data["key"]) != key or data["histogram"].shape != (len(tensors), BINS):
                return None
            return Statistics(tensors, int(data["frames"]), **{name: data[name] for name in _FIELDS})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None  # collected again
