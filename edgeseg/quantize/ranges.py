"""Compute the INT8 ranges of activations by four methods, and keep them in files and a cache.

The range of a tensor is ``amax``, the largest |x| that its scale holds. Quantization is symmetric:
``scale = amax / 127``, and values beyond ``amax`` are clipped. The methods trade clipping against
rounding: ``minmax`` never clips, ``percentile`` clips a fixed share, ``entropy`` and ``mse`` look
for the threshold that loses least. All are computed from one histogram per tensor
(``edgeseg.quantize.histograms``).
"""

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from edgeseg.reporter import SILENT, Reporter
from edgeseg.spec import first_problem
from edgeseg.trust import read_private
from edgeseg.types import Float, Image, Vector

__all__ = [
    "METHODS",
    "RangeOptions",
    "Ranges",
    "Statistics",
    "belonging",
    "cached_ranges",
    "cached_statistics",
    "collect",
    "fitting_ranges",
    "ranges",
    "read_ranges",
    "require_method",
    "write_ranges",
]

Counts = npt.NDArray[np.int64]

METHODS = ("minmax", "percentile", "entropy", "mse")
PERCENTILE = 99.99
# Raise it when the collected statistics change: then older caches are not used.
STATISTICS_FORMAT = 1
# Range of a tensor that was always zero. Its scale is 8e-7, which float16 can hold.
DEAD_AMAX = 1e-4

# Candidates of ``mse`` go from max / 512 to max, 5 % apart, and are then refined twice.
_MSE_REACH = 512.0
_MSE_STEPS = 128
_MSE_REFINE = 16


@dataclass(frozen=True)
class RangeOptions:
    """Say how ranges are computed from statistics.

    Attributes
    ----------
    method : one of ``METHODS``.
    percentile : share of |x| that ``percentile`` does not clip, more than 0 and at most 100.
    bits : width of the quantized integers.

    Examples
    --------
    >>> RangeOptions("percentile", percentile=99.9)
    RangeOptions(method='percentile', percentile=99.9, bits=8)
    """

    method: str
    percentile: float = PERCENTILE
    bits: int = 8


class Ranges(BaseModel):
    """Hold the range of each tensor, and how it was found.

    Attributes
    ----------
    format : version of the file format.
    method : the method, one of ``METHODS``.
    percentile : percentile of the method ``percentile``; ``None`` for other methods.
    bits : width of the quantized integers.
    frames : number of calibration frames.
    network_sha256 : hash of the network's file; empty if unknown.
    set_digest : digest of the calibration set; empty if unknown.
    set_description : the calibration set in words. Only ``set_digest`` is compared.
    amax : the largest |x| that the scale holds, by tensor name.
    notes : what is unusual about a tensor, by tensor name.

    Examples
    --------
    >>> Ranges(method="minmax", bits=8, frames=1, amax={"image": 2.5}).amax["image"]
    2.5
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
    """Check a method and a percentile.

    Parameters
    ----------
    method : one of ``METHODS``.
    percentile : more than 0, at most 100.

    Raises
    ------
    InputError : the method is unknown, or the percentile is out of range.

    Examples
    --------
    >>> require_method("mse")
    """
    if method not in METHODS:
        raise InputError(
            "calibration: unknown method",
            got=repr(method),
            expected=f"one of {', '.join(METHODS)}",
            hint=did_you_mean(method, METHODS),
        )
    if not 0 < percentile <= 100:
        raise InputError(
            "calibration: percentile", got=percentile, expected="more than 0, at most 100"
        )


def ranges(
    statistics: Statistics, method: str, *, percentile: float = PERCENTILE, bits: int = 8
) -> Ranges:
    """Compute the range of every tensor, for symmetric quantization.

    A tensor that was zero on all frames gets ``DEAD_AMAX`` and a note.

    Parameters
    ----------
    statistics : statistics of the tensors, as ``collect`` returns them.
    method : one of ``METHODS``.
    percentile : as in ``RangeOptions``.
    bits : as in ``RangeOptions``.

    Raises
    ------
    InputError : the method is unknown, or the percentile is out of range.
    """
    require_method(method, percentile)
    options = RangeOptions(method, percentile, bits)

    amax: dict[str, float] = {}
    notes: dict[str, str] = {}
    for row, tensor in enumerate(statistics.tensors):
        largest = float(statistics.largest[row])
        if largest == 0.0:
            amax[tensor] = DEAD_AMAX
            notes[tensor] = "zero on every calibration frame"
            continue
        found = _amax_of(statistics, row, options)
        if found == 0.0:  # only ``percentile`` returns it
            found = largest
            notes[tensor] = f"over {percentile} % of it is zero: its maximum was taken"
        amax[tensor] = min(found, largest)

    return Ranges(
        method=method,
        percentile=percentile if method == "percentile" else None,
        bits=bits,
        frames=statistics.frames,
        amax=amax,
        notes=notes,
    )


def _amax_of(statistics: Statistics, row: int, options: RangeOptions) -> float:
    """Return the range of the tensor in a row, which has a value other than zero."""
    largest = float(statistics.largest[row])
    if options.method == "minmax":
        return largest

    # The histogram, without the empty bins behind the largest value.
    width = float(statistics.top[row]) / BINS
    histogram = statistics.histogram[row, : min(int(largest / width) + 1, BINS)]

    positive = 1 << (options.bits - 1)  # integers from 0 on: 128 for 8 bits
    if options.method == "percentile":
        return percentile_amax(histogram, width, int(statistics.zeros[row]), options.percentile)
    if options.method == "entropy":
        return entropy_amax(histogram, width, levels=positive)
    return mse_amax(histogram, width, largest, qmax=positive - 1)


def percentile_amax(histogram: Counts, width: float, zeros: int, percentile: float) -> float:
    """Return the value that a share of all |x|, zeros included, does not exceed.

    The value is interpolated linearly within a bin.

    Parameters
    ----------
    histogram : (bins,) int64 counts of |x| that are not zero.
    width : width of a bin.
    zeros : number of values that are exactly zero.
    percentile : the share in percent, more than 0 and at most 100.

    Examples
    --------
    >>> percentile_amax(np.array([50, 40, 10]), width=0.5, zeros=0, percentile=90)
    1.0
    """
    target = percentile / 100 * (int(histogram.sum()) + zeros)
    if target <= zeros:
        return 0.0

    # Find the bin that the target falls into; it is never an empty one.
    below = zeros + np.concatenate([[0], np.cumsum(histogram)])
    place = int(np.searchsorted(below, target, side="left")) - 1
    place = min(place, len(histogram) - 1)
    return float((place + (target - below[place]) / histogram[place]) * width)


def entropy_amax(histogram: Counts, width: float, levels: int = 128) -> float:
    """Return the threshold of the smallest Kullback-Leibler divergence.

    The divergence is between the true and the quantized distribution. Source: S. Migacz, "8-bit
    inference with TensorRT", GTC 2017. Each threshold keeps some number of bins:

    - P is these bins; the values beyond the threshold are added to the last of them.
    - Q is these bins without that addition, divided into ``levels`` equal stretches. The sum of
      each stretch is spread evenly over its bins that are not empty.

    Values that are exactly zero are not in the histogram, since quantization keeps them. Only
    thresholds whose last bin is not empty are tried, so that Q is 0 only where P is.

    With S and n the sum and the number of non-empty bins of a stretch, running sums give:
    KL = [sum p log p] - [sum over stretches of S log(S / n) + beyond * log(S_last / n_last)]
    + normalisation.

    Parameters
    ----------
    histogram : (bins,) int64 counts of |x| that are not zero.
    width : width of a bin.
    levels : number of integers that are not negative, 128 for 8 bits.

    Returns
    -------
    The threshold, of equally good ones the largest; the end of the histogram if it has fewer bins
    than levels.

    Examples
    --------
    >>> entropy_amax(np.array([80, 70, 60, 50, 0, 0, 0, 1]), width=0.5, levels=4)
    2.0
    """
    counts = histogram.astype(np.float64)
    ends = np.flatnonzero(histogram[levels - 1 :]) + levels  # kept bins per threshold
    if not len(ends):
        return float(len(histogram) * width)

    # Running sums: counts, bins that are not empty, and p log p.
    total = counts.sum()
    sums = np.concatenate([[0.0], np.cumsum(counts)])
    filled = np.concatenate([[0], np.cumsum(histogram > 0)])
    own = np.concatenate([[0.0], np.cumsum(_x_log_x(counts))])

    # Sum and number of non-empty bins of each stretch: (thresholds, levels).
    edges = -(-np.arange(levels + 1) * ends[:, None] // levels)
    stretch = np.diff(sums[edges], axis=1)
    bins = np.diff(filled[edges], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.where(stretch > 0, np.log(stretch / bins), 0.0)  # log of Q before normalisation

    # The divergence of each threshold.
    kept = sums[ends]
    beyond = total - kept
    last = counts[ends - 1]
    entropy_p = own[ends - 1] + _x_log_x(last + beyond)
    cross = (stretch * level).sum(axis=1) + beyond * level[:, -1]
    divergence = (entropy_p - cross) / total - np.log(total) + np.log(kept)

    best = int(len(ends) - 1 - np.argmin(divergence[::-1]))  # the largest of equally good ones
    return float(ends[best] * width)


def _x_log_x(values: Vector) -> Vector:
    """Return x log x; 0 for x = 0."""
    return values * np.log(np.where(values > 0, values, 1.0))


def mse_amax(histogram: Counts, width: float, largest: float, qmax: int = 127) -> float:
    """Return the threshold with the smallest expected squared error of rounding and clipping.

    Parameters
    ----------
    histogram : (bins,) int64 counts of |x| that are not zero.
    width : width of a bin.
    largest : the largest |x|, and the largest threshold that is tried.
    qmax : the largest integer, 127 for 8 bits.

    Examples
    --------
    >>> round(mse_amax(np.full(100, 7), width=0.01, largest=1.0), 3)
    0.996
    """
    candidates = np.geomspace(largest / _MSE_REACH, largest, _MSE_STEPS)
    for _ in range(3):
        errors = squared_error(histogram, width, candidates, qmax)
        best = int(np.argmin(errors))
        found = float(candidates[best])

        # Refine between the neighbours of the best candidate.
        low = candidates[max(best - 1, 0)]
        high = candidates[min(best + 1, len(candidates) - 1)]
        candidates = np.linspace(low, high, _MSE_REFINE)
    return found


def squared_error(histogram: Counts, width: float, amax: Vector, qmax: int = 127) -> Vector:
    """Return the sum of squared errors of symmetric quantization for each candidate range.

    Values are assumed to be uniform within a bin, and the error is integrated exactly. In units of
    the step ``s = amax / qmax``, the error at u is ``(u - q)^2`` with ``q = min(round(u), qmax)``.
    Its integral from 0 is ``q / 12 + (u - q)^3 / 3``.

    Parameters
    ----------
    histogram : (bins,) int64 counts of |x| that are not zero.
    width : width of a bin.
    amax : (candidates,) ranges.
    qmax : the largest integer, 127 for 8 bits.

    Returns
    -------
    (candidates,) float64.

    Examples
    --------
    >>> squared_error(np.array([12]), 1.0, np.array([1.0, 2.0]), qmax=1).tolist()
    [1.0, 4.0]
    """
    edges = np.arange(len(histogram) + 1) * width
    step = amax / qmax

    u = edges / step[:, None]
    q = np.minimum(np.rint(u), qmax)
    off = u - q
    integral = q / 12 + off * off * off / 3
    return np.asarray(step**3 / width * (np.diff(integral, axis=1) @ histogram), np.float64)


def write_ranges(path: Path, found: Ranges) -> Path:
    """Write ranges as JSON, atomically.

    Parameters
    ----------
    path : the file.
    found : the ranges.

    Returns
    -------
    The path.

    Raises
    ------
    OutputError : the file cannot be written.
    """
    return write_json(path, found.model_dump(mode="json"))


def read_ranges(path: Path) -> Ranges:
    """Read a file of ranges.

    Parameters
    ----------
    path : a file that ``write_ranges`` wrote.

    Raises
    ------
    InputError : the file is missing, cannot be read, or is not a file of ranges.
    """
    try:
        return Ranges.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(
            "no such file of ranges", got=repr(str(path)), hint="Make one: `calibrate()`."
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read", got=error.strerror) from error
    except ValidationError as error:
        raise InputError(f"{path}: not a file of ranges", got=first_problem(error)) from error


def fitting_ranges(
    path: Path, network_sha256: str, set_digest: str | None = None, tensors: Sequence[str] = ()
) -> tuple[Ranges | None, str]:
    """Read a file of ranges, and return them only if they are of this network and this set.

    Ranges of another network or set look plausible and cost accuracy, so they are never used.

    Parameters
    ----------
    path : the file.
    network_sha256 : hash of the network's file.
    set_digest : digest of the calibration set; ``None``: any set.
    tensors : tensors that need a range.

    Returns
    -------
    The ranges and an empty text; or ``None`` and the reason, which the caller shows.

    Raises
    ------
    InputError : the file is missing, cannot be read, or is not a file of ranges.
    """
    found = read_ranges(path)
    missing = [name for name in tensors if name not in found.amax]
    if found.network_sha256 != network_sha256:
        others = f"sha256 {found.network_sha256[:12]}, not {network_sha256[:12]}"
        reason = f"belongs to another network ({others})"
    elif set_digest is not None and found.set_digest != set_digest:
        description = found.set_description or found.set_digest[:12]
        reason = f"belongs to another calibration set ({description})"
    elif missing:
        reason = f"lacks {len(missing)} of {len(tensors)} activations, such as {missing[0]!r}"
    else:
        return found, ""
    return None, f"{path}: {reason}; it is not used"


def cached_ranges(
    model: onnx.ModelProto,
    network_sha256: str,
    tensors: Sequence[str],
    calibration_set: CalibrationSet,
    options: RangeOptions,
    to_input: Callable[[Image], Float],
    folder: Path | None = None,
    *,
    reporter: Reporter = SILENT,
) -> tuple[Ranges, bool]:
    """Compute the ranges on a calibration set, from cached statistics if there are some.

    Parameters
    ----------
    model, network_sha256, tensors, calibration_set, to_input, folder : as for
        ``cached_statistics``.
    options : how ranges are computed.
    reporter : receives the progress over the frames.

    Returns
    -------
    The ranges, and whether the statistics were in the cache.

    Raises
    ------
    InputError : the method is unknown, or the percentile is out of range.
    OutputError : the cache cannot be written.
    """
    require_method(options.method, options.percentile)  # before minutes of collecting
    statistics, from_cache = cached_statistics(
        model, network_sha256, tensors, calibration_set, to_input, folder, reporter=reporter
    )
    found = ranges(statistics, options.method, percentile=options.percentile, bits=options.bits)
    return belonging(found, network_sha256, calibration_set), from_cache


def belonging(found: Ranges, network_sha256: str, calibration_set: CalibrationSet) -> Ranges:
    """Return a copy of ranges with the facts about their network and calibration set.

    Parameters
    ----------
    found : the ranges.
    network_sha256 : hash of the network's file.
    calibration_set : the set that they were found with.
    """
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
    reporter: Reporter = SILENT,
) -> tuple[Statistics, bool]:
    """Return the statistics of tensors on a calibration set, from the cache if they are there.

    One file serves every method. Its key holds everything that the statistics depend on: the
    network's hash and the way it is folded (``FOLD_VERSION``), the tensors, the hashes of the
    frames, and the first frame as ``to_input`` returns it, which shows a change of size, mean, std,
    scale or colour order.

    Parameters
    ----------
    model : the folded float graph.
    network_sha256 : hash of the network's file.
    tensors : names of float activations.
    calibration_set : the frames.
    to_input : converts a frame, (H, W, 3) uint8 BGR, to the graph's input tensor.
    folder : folder of the cache; ``None``: the user's cache folder.
    collected : statistics to keep if they were collected by other means, such as
        ``edgeseg.quantize.calibration_check.check.settle``; ``None``: collect them.
    reporter : receives the progress over the frames.

    Returns
    -------
    The statistics, and whether they were in the cache.

    Raises
    ------
    GraphError : the graph has no such activation, or one is not finite.
    OutputError : the cache cannot be written.
    """
    # Look in the cache.
    names = tuple(dict.fromkeys(tensors))
    first = to_input(next(iter(calibration_set.images())))
    key = _key(network_sha256, calibration_set.digest, names, first)
    path = (folder if folder is not None else _cache_folder()) / f"{key[:32]}.npz"
    found = _load(path, key, names) if collected is None else None
    if found is not None:
        return found, True

    # Collect, and keep the result.
    try:
        require_writable(path)  # before minutes of collecting
        if collected is None:
            images = map(to_input, calibration_set.images())
            collected = collect(model, names, images, total=len(calibration_set), reporter=reporter)
        _save(path, key, collected)
    except OutputError as error:
        hint = "Set EDGESEG_CACHE to a folder that can be written."
        raise OutputError(error.what, got=error.got, expected=error.expected, hint=hint) from error
    return collected, False


def _cache_folder() -> Path:
    """Return the folder of cached statistics."""
    from edgeseg.files import cache_folder

    return cache_folder() / "ranges"


def _key(network_sha256: str, set_digest: str, tensors: Sequence[str], first: Float) -> str:
    """Return a hash of everything that statistics depend on; ``first`` is the first input."""
    versions = [str(STATISTICS_FORMAT), str(fold_batchnorm.FOLD_VERSION), str(BINS)]
    facts = [*versions, network_sha256, set_digest, json.dumps(list(tensors))]
    digest = hashlib.sha256("\n".join([*facts, str(first.shape), str(first.dtype)]).encode())
    digest.update(np.ascontiguousarray(first).data)
    return digest.hexdigest()


_FIELDS = ("minimum", "maximum", "top", "elements", "zeros", "histogram")


def _save(path: Path, key: str, statistics: Statistics) -> None:
    """Write statistics to a file of the cache."""
    arrays = {name: getattr(statistics, name) for name in _FIELDS}
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary, key=np.array(key), frames=np.array(statistics.frames), **arrays
        )


def _require_small(content: io.BytesIO, tensors: int) -> None:
    """Raise ``ValueError`` if the arrays of a file unfold to more than statistics take."""
    most = (BINS + len(_FIELDS)) * 8 * max(tensors, 1) + 64 * 1024
    with zipfile.ZipFile(content) as files:
        if sum(entry.file_size for entry in files.infolist()) > most:
            raise ValueError("unfolds to too many bytes")
    content.seek(0)


def _load(path: Path, key: str, tensors: tuple[str, ...]) -> Statistics | None:
    """Read statistics; return ``None`` if the file is missing, damaged, or has another key."""
    try:
        content = io.BytesIO(read_private(path))  # NumPy leaves a damaged file open
        _require_small(content, len(tensors))
        with np.load(content, allow_pickle=False) as data:
            if str(data["key"]) != key or data["histogram"].shape != (len(tensors), BINS):
                return None
            arrays = {name: data[name] for name in _FIELDS}
            return Statistics(tensors, int(data["frames"]), **arrays)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None  # collected again
