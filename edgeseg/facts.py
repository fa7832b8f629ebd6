"""Facts about an engine that only one kind of engine has: types of what a passport holds."""

from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

# Values of `TensorRTFacts.outputs`.
LABELS = "labels"
LABELS_AND_SCORES = "labels, scores"
SCORES = "scores"  # of a plan that runs between edgeseg's own kernels


class Facts(BaseModel):
    """Hold facts about an engine; facts that are ``None`` or empty are left out of the JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_serializer(mode="wrap")
    def _without_empty(self, to_dict: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the facts that are known."""
        return {
            key: value for key, value in to_dict(self).items() if value not in (None, {}, [], ())
        }


class Budget(Facts):
    """Describe how layers were kept in float until INT8 lost no more than a budget.

    Attributes
    ----------
    data, split, frames : the labelled data, its split and the number of frames that were scored.
    max_miou_drop : most points of mIoU that INT8 may lose.
    reference_miou, miou : mIoU of the float network and of the engine, 0 to 1.
    candidates : what was timed: precision, layers in float, mIoU, milliseconds, within the budget.
    pareto : the candidates that no other beats in both mIoU and time.
    scored : everything that was scored.
    rounding_noise : noise power over signal power of each layer in INT8.
    """

    data: str
    split: str
    frames: int
    max_miou_drop: float
    reference_miou: float
    miou: float
    candidates: tuple[dict[str, Any], ...] = ()
    pareto: tuple[dict[str, Any], ...] = ()
    scored: tuple[dict[str, Any], ...] = ()
    rounding_noise: dict[str, float] = {}


class Int8Facts(Facts):
    """Describe how an INT8 engine was made. All facts are empty for a float engine.

    Attributes
    ----------
    origin : how the Q/DQ nodes came into the file, if the file had them already.
    method : how ranges were taken from histograms.
    scales : kind of scales, ``power-of-two`` or ``any``.
    calibration : the calibration set: source, split, choice, digest, and each frame's name and
        hash.
    ranges_from_cache : True if no frame had to be run for the ranges.
    int8_layers, layers : number of layers in INT8, and of all layers.
    float_layers : the layers in float, with the reason.
    label_agreement : share of labels that equal the float network's, 0 to 1.
    label_change : what changed in each class.
    budget : the budget that was kept, if there was one.
    frames_shared_with_data : number of calibration frames that are in the scored data too.
    """

    origin: str | None = None
    method: str | None = None
    scales: str | None = None
    calibration: dict[str, Any] = {}
    ranges_from_cache: bool | None = None
    int8_layers: int | None = None
    layers: int | None = None
    float_layers: dict[str, str] = {}
    label_agreement: float | None = None
    label_change: dict[str, Any] = {}
    budget: Budget | None = None
    frames_shared_with_data: int | None = None


class OpenVinoFacts(Facts):
    """Describe how OpenVINO compiled an engine.

    Attributes
    ----------
    config : compile settings of OpenVINO; the engine is opened with the same.
    argmax : how the argmax is found, ``search`` or ``compare``.
    unpool : ``native`` (standard operators) or ``extension`` (edgeseg's own).
    activations : how INT8 activations are stored, ``signed`` or ``unsigned``.
    floats : precision of everything that is not INT8, ``fp32`` or ``bf16``.
    rounded_in_float : nodes that are computed in float and rounded as the file rounds, because
        OpenVINO computes them wrongly in INT8.
    latency_ms : median milliseconds per frame of the forms that were timed.
    """

    config: dict[str, str]
    argmax: str = ""
    unpool: str = "native"
    activations: str = ""
    floats: str = ""
    rounded_in_float: tuple[str, ...] = ()
    latency_ms: dict[str, float] = {}


class TensorRTFacts(Facts):
    """Describe how TensorRT or TensorRT-RTX compiled a plan.

    Attributes
    ----------
    outputs : outputs of the plan, ``LABELS``, ``LABELS_AND_SCORES`` or ``SCORES``.
    unpool : ``native`` (standard operators) or ``plugin`` (edgeseg's CUDA library).
    batch : smallest, best and largest number of frames per run.
    sizes : smallest, best and largest (H, W); empty if the plan takes the spec's size only.
    size_step : heights and widths are multiples of it.
    version_compatible : True if later minor versions of TensorRT open the plan.
    plugin : file name of the plugin's library; empty without it.
    plugin_sources_sha256 : hash of the plugin's sources.
    workspace_mib, level : the limits that were set, in MiB and from 0 to 5.
    layers : number of layers of the plan.
    warnings : what TensorRT warned of.
    trtexec_build, trtexec_run : commands that build and run the same plan.
    graph_sha256 : hash of the ONNX graph that TensorRT was given.
    fp16_seen : the frames that showed which values FP16 cannot hold.
    fp32_nodes : nodes that stay in FP32.
    """

    outputs: str = LABELS
    unpool: str = "native"
    batch: tuple[int, int, int] = (1, 1, 1)
    sizes: tuple[tuple[int, int], ...] = ()
    size_step: int = 1
    version_compatible: bool = False
    plugin: str = ""
    plugin_sources_sha256: str = ""
    workspace_mib: int | None = None
    level: int | None = None
    layers: int | None = None
    warnings: tuple[str, ...] = ()
    trtexec_build: str = ""
    trtexec_run: str = ""
    graph_sha256: str = ""
    fp16_seen: str = ""
    fp32_nodes: tuple[str, ...] = ()
