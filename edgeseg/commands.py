"""The commands as functions: from files and addresses to files and results.

``edgeseg.NAME`` is each of them. They are for programs; the command line calls the same stages,
with progress bars.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.graph.network import Network, Overrides, load_network
from edgeseg.reporter import LINES, SILENT, Reporter

if TYPE_CHECKING:
    from edgeseg.backends.engine import Engine
    from edgeseg.profiling.comparison import Comparison
    from edgeseg.profiling.report import Report
    from edgeseg.profiling.results import Result
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
    reporter: Reporter = SILENT,
) -> "Engine":
    """Open an engine: a file, an ONNX file, or a model that ships.

    Parameters
    ----------
    engine : an ``.engine`` file, an ``.onnx`` file (built once and kept in the cache), or the name
        of a model that ships, such as ``enet-camvid``.
    precision : precision of an ONNX file or of a model that ships; ``auto`` is the fastest on this
        machine that keeps the accuracy.
    target : ``cpu``, ``tensorrt``, ``tensorrt-rtx``, or ``auto``.
    overrides : facts about an ONNX file that has no edgeseg spec: size, mean, std, labels, ...
    reporter : receives messages, and the progress of a build.

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

    return resolve_engine(
        engine, precision=precision, target=target, overrides=overrides, reporter=reporter
    )


def calibrate(
    onnx: str | Path | Network,
    calib: "str | CalibrationSet",
    out: str | Path | None = None,
    *,
    method: str = "mse",
    reporter: Reporter = SILENT,
) -> "Ranges":
    """Find the ranges that INT8 needs, on a calibration set.

    Parameters
    ----------
    onnx : a float ONNX file; or a network from ``edgeseg.load_network``, which takes the facts of a
        file that has no edgeseg spec.
    calib : a calibration set, or its address: ``camvid:PATH``, a folder, a video, ``synthetic://``
        or a ``.toml``.
    out : file for the ranges, ``NAME.ranges.json``; ``Quantization(ranges=...)`` takes it. None to
        write no file.
    method : how a range is chosen from a histogram: ``minmax``, ``percentile``, ``entropy`` or
        ``mse``.
    reporter : receives messages and progress.

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
    from edgeseg.quantize.calibration_set import CalibrationSet, resolve_set
    from edgeseg.quantize.ptq import plan_quantization
    from edgeseg.quantize.ranges import require_method, write_ranges

    require_method(method)
    network = onnx if isinstance(onnx, Network) else load_network(onnx)
    calibration = (
        calib if isinstance(calib, CalibrationSet) else resolve_set(calib, reporter=reporter)
    )

    found = plan_quantization(network, calibration, method, reporter=reporter).ranges
    if out is not None:
        write_ranges(Path(out), found)
    return found


def sensitivity(
    onnx: str | Path | Network,
    calib: "str | CalibrationSet",
    *,
    data: str | None = None,
    split: str = "val",
    frames: int = 12,
    layers: int = 16,
    method: str = "mse",
    reporter: Reporter = SILENT,
) -> "Sensitivity":
    """Measure what INT8 does to each layer alone: error, cost in mIoU or labels, time saved.

    Parameters
    ----------
    onnx : a float ONNX file; or a network from ``edgeseg.load_network``, which takes the facts of a
        file that has no edgeseg spec.
    calib : a calibration set, or its address.
    data : labelled data, such as ``camvid:PATH``; without it, the labels of the float model are the
        truth.
    split : the split of ``data``.
    frames : number of frames to score on, evenly spread.
    layers : number of layers to score one by one, those with the largest error; 0 scores all.
    method : how a range is chosen from a histogram.
    reporter : receives messages and progress.

    Raises
    ------
    InputError : the file is quantized already, or there is no such set, data or method.
    DataError : the data has other classes than the model.
    """
    from edgeseg.data import open_dataset
    from edgeseg.profiling.sensitivity import sensitivity as measure
    from edgeseg.quantize.calibration_set import CalibrationSet, resolve_set
    from edgeseg.quantize.ptq import plan_quantization

    network = onnx if isinstance(onnx, Network) else load_network(onnx)
    dataset = open_dataset(data, split) if data else None
    calibration = (
        calib if isinstance(calib, CalibrationSet) else resolve_set(calib, reporter=reporter)
    )

    plan = plan_quantization(network, calibration, method, reporter=reporter)
    return measure(plan, calibration, dataset, frames=frames, layers=layers, reporter=reporter)


def compare(
    engines: "Sequence[Engine | str | Path]",
    data: str,
    *,
    split: str = "val",
    frames: int | None = None,
    rounds: int = 3,
    reporter: Reporter = SILENT,
) -> "Comparison":
    """Compare engines on the same frames: scores, boundaries, equal labels, latency, size.

    Parameters
    ----------
    engines : engines, engine files, ONNX files or models that ship; a name may end in
        ``@PRECISION``. The first one is the reference.
    data : labelled data, such as ``camvid:PATH``. Or a video, a folder or a camera: then the labels
        of the first engine are the truth.
    split : the split of labelled data.
    frames : number of frames, evenly spread; None for all.
    rounds : how often each engine is timed; the engines take turns.
    reporter : receives messages and progress.

    Raises
    ------
    InputError : there is no such engine or data.
    DataError : the engines or the data have different classes.

    Examples
    --------
    >>> import edgeseg
    >>> engines = ["enet-camvid@fp32", "enet-camvid@int8"]
    >>> result = edgeseg.compare(engines, "drive.mp4")  # doctest: +SKIP
    """
    from edgeseg.profiling.compare import compare as measure
    from edgeseg.profiling.frames import open_frames, spread_frames
    from edgeseg.video import Source

    opened = open_frames(data, split)
    try:
        name = data if isinstance(opened, Source) else None
        return measure(
            engines,
            opened,
            indices=spread_frames(opened, frames),
            name=name,
            rounds=rounds,
            reporter=reporter,
        )
    finally:
        if isinstance(opened, Source):
            opened.close()


def profile(
    engines: "Sequence[Engine | str | Path]",
    data: str | None = None,
    *,
    source: str | None = None,
    split: str = "val",
    frames: int | None = None,
    seconds: float = 10.0,
    layers: bool = False,
    reporter: Reporter = SILENT,
) -> "Result":
    """Measure engines side by side: latency, stages, throughput, start, power, and layers.

    Parameters
    ----------
    engines : engines, engine files, ONNX files or models that ship; a name may end in
        ``@PRECISION``.
    data : labelled data, such as ``camvid:PATH``, to score on and to time on.
    source : frames to time on: a video, a folder, a camera. Without ``data``, too: a synthetic
        drive.
    split : the split of ``data``.
    frames : number of frames to score, evenly spread; None for all.
    seconds : time of calls per engine; the engines take turns.
    layers : True to time every layer, and to measure what bounds it.
    reporter : receives messages and progress.

    Raises
    ------
    InputError : there is no such engine, data or source.

    Examples
    --------
    >>> import edgeseg
    >>> result = edgeseg.profile(["enet-camvid@fp32", "enet-camvid@int8"])  # doctest: +SKIP
    >>> result.engines[0].latency.ms_p50  # doctest: +SKIP
    9.87
    """
    from edgeseg.profiling.profile import ProfileOptions
    from edgeseg.profiling.profile import profile as measure
    from edgeseg.profiling.workload import open_workload

    work = open_workload(data, source, split=split, frames=frames)
    return measure(engines, work, ProfileOptions(seconds=seconds, layers=layers), reporter=reporter)


def report(
    engines: "Sequence[Engine | str | Path]",
    data: str,
    out: str | Path | None = None,
    *,
    results: Sequence[str | Path] = (),
    split: str = "val",
    frames: int | None = None,
    reporter: Reporter = SILENT,
) -> "Report":
    """Make one HTML page on what each precision costs; it needs no network.

    Parameters
    ----------
    engines : as in ``compare``; the first one is the reference.
    data : labelled data, such as ``camvid:PATH``; or a video, a folder or a camera.
    out : the HTML file; None to write no file.
    results : JSON files of ``edgeseg profile`` and ``edgeseg sensitivity`` to show, too.
    split : the split of labelled data.
    frames : number of frames, evenly spread; None for all.
    reporter : receives messages and progress.

    Raises
    ------
    InputError : there is no such engine, data or result.
    DataError : the engines or the data have different classes.

    Examples
    --------
    >>> import edgeseg
    >>> engines = ["enet-camvid@fp32", "enet-camvid@int8"]
    >>> made = edgeseg.report(engines, "camvid:data/camvid", "report.html")  # doctest: +SKIP
    >>> made.facts["verdict"]  # doctest: +SKIP
    'Against FP32, INT8 costs 0.10 mIoU and saves 19 % of the time, while Car loses 1.05 points.'
    """
    from edgeseg.profiling.frames import open_frames, spread_frames
    from edgeseg.profiling.report import report as make
    from edgeseg.profiling.report.write import Extras
    from edgeseg.video import Source

    extras = Extras.read([Path(path) for path in results])
    opened = open_frames(data, split)
    try:
        made = make(
            engines,
            opened,
            indices=spread_frames(opened, frames),
            name=data if isinstance(opened, Source) else None,
            extras=extras,
            reporter=reporter,
        )
    finally:
        if isinstance(opened, Source):
            opened.close()
    if out is not None:
        made.write(Path(out))
    return made


def export_onnx(
    checkpoint: str | Path,
    out: str | Path | None = None,
    *,
    size: tuple[int, int] | None = None,
    half: bool = False,
) -> Path:
    """Write a checkpoint as an ONNX file with its spec inside, and check it against PyTorch.

    Parameters
    ----------
    checkpoint : ``best.pt`` of a run.
    out : the file to write; by default the run's name with ``.onnx``.
    size : input size (H, W); by default the size of the training.
    half : store the weights in FP16: half the file size.
    """
    from edgeseg.export.onnx_from_torch import export_checkpoint

    return export_checkpoint(checkpoint, out, size, half=half)


def train(
    recipe: "Recipe | str | Path",
    out: str | Path,
    *,
    resume: bool = False,
    reporter: Reporter = LINES,
) -> Path:
    """Train a model with a recipe; return the checkpoint ``best.pt`` in the folder ``out``.

    Parameters
    ----------
    recipe : a recipe, or its TOML file.
    out : the folder of the run.
    resume : continue a run that was stopped.
    reporter : receives a line per validation, and the progress of each epoch; by default the lines
        are printed.
    """
    from edgeseg.training.fit import train as fit
    from edgeseg.training.recipe import Recipe, load_recipe

    plan = recipe if isinstance(recipe, Recipe) else load_recipe(Path(recipe))
    return fit(plan, Path(out), resume=resume, reporter=reporter)


def qat(
    checkpoint: str | Path,
    out: str | Path | None = None,
    tuning: "Tuning | None" = None,
    *,
    reporter: Reporter = LINES,
) -> "Tuned":
    """Fine-tune a checkpoint for INT8; write an ONNX file with Q/DQ nodes to build engines from.

    Parameters
    ----------
    checkpoint : ``best.pt`` of a run.
    out : the ONNX file; by default ``NAME.qat.onnx`` beside the checkpoint.
    tuning : epochs, learning rate, batch, distillation, data.
    reporter : receives a line per epoch, and the progress of each epoch; by default the lines are
        printed.
    """
    from edgeseg.training.qat.fine_tune import tune

    return tune(checkpoint, out, tuning, reporter=reporter)
