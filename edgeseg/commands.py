"""The commands as functions: from files and addresses to files and results.

``edgeseg.NAME`` gives each of them. They are for programs; the command line calls the same stages below, with progress
bars between them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.graph.network import Overrides

if TYPE_CHECKING:
    from edgeseg.backends.engine import Engine
    from edgeseg.profiling.compare import Comparison
    from edgeseg.profiling.sensitivity import Sensitivity
    from edgeseg.quantize.calibration_set import CalibrationSet
    from edgeseg.quantize.ranges import Ranges
    from edgeseg.training.qat.fine_tune import Tuned, Tuning
    from edgeseg.training.recipe import Recipe


def load_engine(
    engine: str | Path,
    *,
    precision: str = "auto",
    target: str = "auto",
    overrides: Overrides | None = None,
) -> "Engine":
    """Open an engine: a file, an ONNX file, or a model that ships.

    Parameters
    ----------
    engine : an ``.engine`` file, an ``.onnx`` file (built once and kept in the cache), or a name such as
        ``enet-camvid``.
    precision : of an ONNX file or a model that ships; ``auto`` is the fastest here that keeps the accuracy.
    target : ``cpu``, ``tensorrt``, ``tensorrt-rtx``, or ``auto``.
    overrides : facts about an ONNX file that has no edgeseg spec: size, mean, std, labels, ...

    Raises
    ------
    EngineError : the engine is damaged, out of date, or another machine's.
    InputError : there is no such engine, or it has another precision or target.

    Examples
    --------
    >>> import numpy, edgeseg
    >>> engine = edgeseg.load_engine("enet-camvid", precision="fp32")  # doctest: +SKIP
    >>> engine(numpy.zeros((360, 480, 3), numpy.uint8)).shape  # doctest: +SKIP
    (360, 480)
    """
    from edgeseg.build.engine_cache import resolve_engine

    return resolve_engine(engine, precision=precision, target=target, overrides=overrides)


def calibrate(
    onnx: str | Path,
    calib: "str | CalibrationSet",
    out: str | Path | None = None,
    *,
    method: str = "mse",
    overrides: Overrides | None = None,
) -> "Ranges":
    """Find the ranges that INT8 needs, on a calibration set.

    Parameters
    ----------
    onnx : a float ONNX file.
    calib : a calibration set, or its address: ``camvid:PATH``, a folder, a video, ``synthetic://``, a ``.toml``.
    out : the file to write the ranges to, ``NAME.ranges.json``; ``Quantization(ranges=...)`` takes it.
    method : how a range is taken from a histogram: ``minmax``, ``percentile``, ``entropy``, ``mse``.
    overrides : facts about an ONNX file that has no edgeseg spec.

    Raises
    ------
    InputError : the file is quantized already, or there is no such set or method.

    Examples
    --------
    >>> import edgeseg
    >>> found = edgeseg.calibrate("net.onnx", "synthetic://?length=8")  # doctest: +SKIP
    >>> found.amax["image"]  # doctest: +SKIP
    2.64
    """
    from edgeseg.graph.network import load_network
    from edgeseg.quantize.calibration_set import CalibrationSet, resolve_set
    from edgeseg.quantize.ptq import prepare
    from edgeseg.quantize.ranges import require_method, write_ranges

    require_method(method)
    network = load_network(onnx, overrides)
    calibration = calib if isinstance(calib, CalibrationSet) else resolve_set(calib)

    found = prepare(network, calibration, method).ranges
    if out is not None:
        write_ranges(Path(out), found)
    return found


def sensitivity(
    onnx: str | Path,
    calib: "str | CalibrationSet",
    *,
    data: str | None = None,
    split: str = "val",
    frames: int = 12,
    layers: int = 16,
    method: str = "mse",
    overrides: Overrides | None = None,
) -> "Sensitivity":
    """Measure what INT8 does to each layer alone: error, cost in mIoU or labels, time saved.

    Parameters
    ----------
    onnx : a float ONNX file.
    calib : a calibration set, or its address.
    data : labelled data, such as ``camvid:PATH``; without it, labels of the float model are the truth.
    split : the split of ``data``.
    frames : how many frames to score on, evenly spread.
    layers : how many of the layers with the largest error to score one by one; 0 scores all.
    method : how a range is taken from a histogram.
    overrides : facts about an ONNX file that has no edgeseg spec.
    """
    from edgeseg.data import open_dataset
    from edgeseg.graph.network import load_network
    from edgeseg.profiling.sensitivity import sensitivity as measure
    from edgeseg.quantize.calibration_set import CalibrationSet, resolve_set
    from edgeseg.quantize.ptq import prepare

    network = load_network(onnx, overrides)
    dataset = open_dataset(data, split) if data else None
    calibration = calib if isinstance(calib, CalibrationSet) else resolve_set(calib)

    prepared = prepare(network, calibration, method)
    return measure(prepared, calibration, dataset, frames=frames, layers=layers)


def compare(
    engines: "Sequence[Engine | str | Path]",
    data: str,
    *,
    split: str = "val",
    frames: int | None = None,
    rounds: int = 3,
) -> "Comparison":
    """Compare engines on the same frames: scores, boundaries, equal labels, latency, size.

    Parameters
    ----------
    engines : engines, engine files, ONNX files or models that ship, each name with ``@PRECISION`` if wanted. The first
        is the reference.
    data : labelled data, such as ``camvid:PATH``; or a video, a folder, a camera: then the labels of the first engine
        are the truth.
    split : the split of labelled data.
    frames : how many frames, evenly spread; all unless given.
    rounds : how often each engine takes a turn while it is timed.

    Examples
    --------
    >>> import edgeseg
    >>> result = edgeseg.compare(["enet-camvid@fp32", "enet-camvid@int8"], "drive.mp4")  # doctest: +SKIP
    """
    from edgeseg.profiling.compare import compare as measure
    from edgeseg.profiling.frames import open_frames, spread_frames
    from edgeseg.video import Source

    opened = open_frames(data, split)
    try:
        name = data if isinstance(opened, Source) else None
        return measure(engines, opened, indices=spread_frames(opened, frames), name=name, rounds=rounds)
    finally:
        if isinstance(opened, Source):
            opened.close()


def export_onnx(
    checkpoint: str | Path,
    out: str | Path | None = None,
    *,
    size: tuple[int, int] | None = None,
    half: bool = False,
) -> Path:
    """Write a checkpoint as an ONNX file with its spec inside, checked against PyTorch.

    Parameters
    ----------
    checkpoint : ``best.pt`` of a run.
    out : the file to write; the run's name with ``.onnx`` unless given.
    size : input size (H, W), instead of the one it was trained at.
    half : store the weights in FP16: half the file.
    """
    from edgeseg.export.onnx_from_torch import export_checkpoint

    return export_checkpoint(checkpoint, out, size, half=half)


def train(recipe: "Recipe | str | Path", out: str | Path, *, resume: bool = False) -> Path:
    """Train a model by a recipe; return the checkpoint ``best.pt`` in the folder ``out``.

    Parameters
    ----------
    recipe : a recipe, or its TOML file.
    out : the folder of the run.
    resume : go on with a run that was stopped.
    """
    from edgeseg.training.fit import train as fit
    from edgeseg.training.recipe import Recipe, load_recipe

    plan = recipe if isinstance(recipe, Recipe) else load_recipe(Path(recipe))
    return fit(plan, Path(out), resume=resume)


def qat(checkpoint: str | Path, out: str | Path | None = None, tuning: "Tuning | None" = None) -> "Tuned":
    """Fine-tune a checkpoint while it rounds as INT8 does; write a Q/DQ ONNX file to build engines from.

    Parameters
    ----------
    checkpoint : ``best.pt`` of a run.
    out : the ONNX file; ``NAME.qat.onnx`` beside the checkpoint unless given.
    tuning : epochs, learning rate, batch, distillation, data.
    """
    from edgeseg.training.qat.fine_tune import tune

    return tune(checkpoint, out, tuning)
