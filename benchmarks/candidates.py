"""Run one net in float by PyTorch, ONNX Runtime, OpenVINO and edgeseg, on one common case."""

import contextlib
import io
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from edgeseg.backends.load import load_engine
from edgeseg.backends.openvino import runtime
from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.data import open_dataset
from edgeseg.export.onnx_from_torch import export_module
from edgeseg.imaging.preprocess import resize_frame, to_input
from edgeseg.models import architecture, create
from edgeseg.quantize.calibration_set import CalibrationSet, resolve_set
from edgeseg.spec import CAMVID_11, ModelSpec

BASELINE = "PyTorch eager FP32"
# Calibration frames are of its train split, the timed frame is of val.
DATA = "synthetic://?size=480x360&seed=0"
CALIBRATION_FRAMES = 8
_TRIAL_TURNS = 9
_TRIAL_SECONDS = 4.0


@dataclass
class Candidate:
    """Hold one way to run the net.

    Attributes
    ----------
    name : title of the row.
    ours : True for edgeseg.
    call : runs one frame.
    labels : runs one frame and returns its labels.
    times : seconds of all timed calls.
    detail : more facts for the JSON line.
    engine : the engine file of an edgeseg row, whose nodes are timed one by one, too.
    """

    name: str
    ours: bool
    call: Callable[[], Any]
    labels: Callable[[], Any]
    times: list[float] = field(default_factory=list)
    detail: dict[str, Any] = field(default_factory=dict)
    engine: Path | None = None

    @property
    def median_ms(self) -> float:
        """Return the median time of a call, milliseconds."""
        return statistics.median(self.times) * 1e3


@dataclass(frozen=True)
class Case:
    """Hold what all candidates of a net are given.

    Attributes
    ----------
    name : name of the net.
    standard : its ONNX file.
    spec : its input and classes.
    frame : the timed frame, (H, W, 3) uint8 BGR.
    calibration : the frames to calibrate on.
    """

    name: str
    standard: Path
    spec: ModelSpec
    frame: Any
    calibration: CalibrationSet

    @property
    def tensor(self) -> Any:
        """Return the frame as the net takes it, (1, 3, H, W) float32."""
        return to_input(self.frame, self.spec)

    def calibration_tensors(self) -> list[Any]:
        """Return the calibration frames, each (1, 3, H, W) float32, the same for everyone."""
        return [to_input(frame, self.spec) for frame in self.calibration.images()]


def make_net(name: str, size: tuple[int, int]) -> torch.nn.Module:
    """Return the net with random weights, the same each time."""
    torch.manual_seed(0)
    net = create(name, len(CAMVID_11))
    _settle(net, size)
    return net


def make_case(name: str, net: torch.nn.Module, size: tuple[int, int], folder: Path) -> Case:
    """Export ``net`` to ``folder`` and choose the frames."""
    spec = ModelSpec(
        architecture=name, input_size=size, stride=architecture(name).stride, labels=CAMVID_11
    )
    frame = np.ascontiguousarray(resize_frame(open_dataset(DATA, "val")[0].image, size))
    standard = export_module(net, spec, folder / f"{name}.onnx")
    return Case(
        name, standard, spec, frame, resolve_set(DATA, split="train", count=CALIBRATION_FRAMES)
    )


def _settle(net: torch.nn.Module, size: tuple[int, int]) -> None:
    """Give batch normalisation the statistics of a noise batch.

    Activations then have the scale of a trained net.
    """
    net.train()
    with torch.no_grad():
        for _ in range(2):
            net(torch.randn(1, 3, *size))
    net.eval()


@contextlib.contextmanager
def pytorch_pooling(name: str) -> Iterator[None]:
    """Let the net use PyTorch's own pooling and unpooling (int64 indices) for a while.

    This is how anyone else would write it.
    """
    module: Any = import_module(architecture(name).factory.split(":")[0])
    pool = module.max_pool_code
    unpool = module.max_unpool_code

    def torch_pool(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pooled, indices = F.max_pool2d(x, 2, return_indices=True)
        return pooled, indices

    def torch_unpool(x: torch.Tensor, indices: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return F.max_unpool2d(x, indices, (2, 2), output_size=list(like.shape[2:]))

    module.max_pool_code = torch_pool
    module.max_unpool_code = torch_unpool
    try:
        yield
    finally:
        module.max_pool_code = pool
        module.max_unpool_code = unpool


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings, log lines and progress bars of the libraries that are measured."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def torch_candidates(case: Case, net: torch.nn.Module) -> list[Candidate]:
    """Return PyTorch as it is, and compiled."""
    return [
        _torch(case, net, BASELINE, compiled=False, bf16=False),
        _torch(case, net, "torch.compile FP32", compiled=True, bf16=False),
        _torch(case, net, "torch.compile BF16 autocast", compiled=True, bf16=True),
    ]


def _torch(
    case: Case, net: torch.nn.Module, title: str, *, compiled: bool, bf16: bool
) -> Candidate:
    """Return PyTorch in one of its forms."""
    run: Any = torch.compile(net) if compiled else net
    x = torch.from_numpy(case.tensor)

    def call() -> torch.Tensor:
        with (
            torch.inference_mode(),
            torch.autocast("cpu", torch.bfloat16, enabled=bf16),
            pytorch_pooling(case.name),
        ):
            out: torch.Tensor = run(x)
            return out

    return Candidate(title, False, call, lambda: call().float().argmax(1)[0].numpy())


def onnxruntime_candidate(path: Path, x: Any, title: str) -> Candidate:
    """Return ONNX Runtime on a file, with its default settings."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def call() -> Any:
        return session.run(None, {name: x})[0]

    return Candidate(title, False, call, lambda: call().argmax(1)[0])


def openvino_candidate(model: Any, x: Any, title: str) -> Candidate:
    """Return OpenVINO on its own model, tuned for latency.

    Its default precision is BF16 if the processor has it.
    """
    model.reshape(list(x.shape))
    compiled = runtime.core().compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    request = compiled.create_infer_request()

    def call() -> Any:
        request.infer({0: x}, share_inputs=True)
        return request.get_output_tensor(0).data

    detail = {"float_parts": compiled.get_property("INFERENCE_PRECISION_HINT").to_string()}
    return Candidate(title, False, call, lambda: call().argmax(1)[0], detail=detail)


def pytorch_export(case: Case, net: torch.nn.Module) -> Path:
    """Write what ``torch.onnx.export`` writes by itself, and return the file.

    It unpools by a scatter.
    """
    path = case.standard.with_name(f"{case.name}-scatter.onnx")
    with quiet(), pytorch_pooling(case.name):
        torch.onnx.export(
            net,
            (torch.from_numpy(case.tensor),),
            str(path),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return path


def engine_candidate(case: Case, engine: Path, title: str) -> Candidate:
    """Return an edgeseg engine file, from frame to labels."""
    opened = load_engine(engine)
    facts = opened.passport.int8
    detail: dict[str, Any] = {"argmax": opened.passport.openvino.argmax}
    if facts.int8_layers is not None:
        detail |= {
            "ranges": facts.method,
            "int8_layers": facts.int8_layers,
            "layers": facts.int8_layers + len(facts.float_layers),
            "label_agreement_on_calibration_frames": facts.label_agreement,
        }
    return Candidate(
        title, True, lambda: opened(case.frame), lambda: opened(case.frame), [], detail, engine
    )


def float_candidates(case: Case, net: torch.nn.Module) -> list[Candidate]:
    """Return every way in float; the others are compared to the first."""
    x = case.tensor
    scatter = runtime.core().read_model(pytorch_export(case, net))
    floats = [p for p in runtime.FLOATS if p == "fp32" or "BF16" in runtime.device().features]
    return [
        *torch_candidates(case, net),
        onnxruntime_candidate(case.standard, x, "ONNX Runtime FP32, standard MaxUnpool"),
        openvino_candidate(scatter, x, "OpenVINO default, PyTorch's own export"),
        *(
            engine_candidate(case, build_engine(case.standard, precision=p), f"edgeseg {p.upper()}")
            for p in floats
        ),
    ]


def fastest(variants: dict[str, Candidate]) -> Candidate:
    """Return the variant with the lowest median over a few calls in turn.

    Its ``detail`` gets the name of the variant, and the time of every variant.
    """
    spent: dict[str, list[float]] = {form: [] for form in variants}
    for candidate in variants.values():
        candidate.call()
    end = time.perf_counter() + _TRIAL_SECONDS
    for turn in range(_TRIAL_TURNS):
        for form, candidate in variants.items():
            start = time.perf_counter()
            candidate.call()
            spent[form].append(time.perf_counter() - start)
        if turn > 1 and time.perf_counter() > end:
            break
    tried = {form: round(statistics.median(seconds) * 1e3, 3) for form, seconds in spent.items()}
    best = min(tried, key=lambda form: tried[form])
    variants[best].detail |= {"variant": best, "tried_ms": tried}
    return variants[best]
