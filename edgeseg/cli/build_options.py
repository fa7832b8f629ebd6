"""Define the options of ``build-engine`` for INT8 and for TensorRT, and parse their values."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from edgeseg.cli.options import Calib, DataOptions, Method, MethodOption, Precision
from edgeseg.cli.parsing import parse_size, whole_number
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.backends.base import PlanOptions
    from edgeseg.build.options import Quantization

# Copies of the values of edgeseg.build.options, whose import takes 0.3 s: --help shows them.
# A test compares the copies with the originals.
LEAST_AGREEMENT = 0.9
LEAST_MEAN_IOU = 0.9
LEAST_CLASS_IOU = 0.7

SET_EXAMPLES = "camvid:PATH, a folder, a video, synthetic:// or calibration/sets/NAME.toml"


class Scales(str, Enum):
    """List the values that scales of INT8 may have."""

    power_of_two = "power-of-two"
    any = "any"


@dataclass(frozen=True)
class Int8Options:
    """Hold the options of INT8.

    Attributes
    ----------
    int8 : build an INT8 engine.
    calib : address of the calibration set.
    method : how ranges are chosen.
    scales : values that scales may have.
    ranges : file of ranges to use.
    keep_float : names of layers that stay in float.
    max_miou_drop : budget in points of mIoU.
    frames : number of frames to score on.
    min_agreement, min_iou, min_class_iou : limits below which the engine is refused.
    save_onnx : file to write the quantized graph to.
    """

    HELP_PANEL: ClassVar[str] = "INT8 (needs --calib)"

    int8: Annotated[
        bool,
        typer.Option("--int8", help="The same as --precision int8."),
    ] = False
    calib: Calib = None
    method: MethodOption = Method.mse
    scales: Annotated[
        Scales,
        typer.Option(
            help="Values of the scales. power-of-two: every runtime computes the same labels.",
        ),
    ] = Scales.power_of_two
    ranges: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Use these ranges, a file that edgeseg calibrate -o wrote.",
        ),
    ] = None
    keep_float: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER",
            help="Leave this layer in float. Repeat for more layers.",
        ),
    ] = None
    max_miou_drop: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="POINTS",
            help="Leave layers in float until INT8 loses at most this much mIoU on --data.",
        ),
    ] = None
    frames: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of frames of --data to score on, evenly spread. Default: all.",
        ),
    ] = None
    min_agreement: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Refuse INT8 if fewer pixels (0..1) keep the float model's label; 0: never.",
        ),
    ] = LEAST_AGREEMENT
    min_iou: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Refuse INT8 if its mean IoU with the float model's labels is smaller.",
        ),
    ] = LEAST_MEAN_IOU
    min_class_iou: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Refuse INT8 if a class with more than 0.1 % of the pixels has a smaller IoU.",
        ),
    ] = LEAST_CLASS_IOU
    save_onnx: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write the quantized graph as an ONNX file with Q/DQ nodes.",
        ),
    ] = None

    def resolve_precision(self, wanted: Precision) -> Precision:
        """Return the precision to build, from ``--int8`` and ``--precision``.

        Parameters
        ----------
        wanted : the value of ``--precision``.

        Raises
        ------
        InputError : ``--int8`` is given with another ``--precision``.
        """
        if not self.int8:
            return wanted
        if wanted not in (Precision.auto, Precision.int8):
            raise InputError(
                "--int8 and --precision disagree",
                got=f"--precision {wanted.value}",
                hint="Give one of them.",
            )
        return Precision.int8

    def quantization(self, data: DataOptions) -> "Quantization":
        """Return the options as the build takes them.

        Parameters
        ----------
        data : the labelled data to score on.

        Raises
        ------
        InputError : an option needs a calibration set, and none is given.
        """
        from edgeseg.build.options import Quantization

        self._require_calibration_set(data)
        return Quantization(
            method=self.method.value,
            keep_float=tuple(self.keep_float or ()),
            data=data.data,
            split=data.split,
            frames=self.frames,
            max_miou_drop=self.max_miou_drop,
            least_agreement=self.min_agreement,
            least_mean_iou=self.min_iou,
            least_class_iou=self.min_class_iou,
            ranges=self.ranges,
            scales=self.scales.value,
            save_onnx=self.save_onnx,
        )

    def _require_calibration_set(self, data: DataOptions) -> None:
        """Raise ``InputError`` if an option is given that works only with ``--calib``."""
        is_given = {
            "--keep-float": self.keep_float is not None,
            "--max-miou-drop": self.max_miou_drop is not None,
            "--data": data.data is not None,
            "--ranges": self.ranges is not None,
            "--scales": self.scales is not Scales.power_of_two,
        }
        given = [option for option, used in is_given.items() if used]
        if given and not self.calib:
            raise InputError(
                "INT8 options without a calibration set",
                got=", ".join(given),
                hint=f"Give one: --calib {SET_EXAMPLES}.",
            )


@dataclass(frozen=True)
class TensorRtOptions:
    """Hold the options of TensorRT and TensorRT-RTX.

    Attributes
    ----------
    sm : compute capabilities to build for.
    workspace : limit of scratch memory, in MiB.
    level : how long to search for fast kernels.
    timing_cache : file of measured kernels.
    scores : the plan returns logits, too.
    version_compatible : later versions of TensorRT open the plan, too.
    kernels : edgeseg's CUDA kernels resize frames and paint pictures.
    batch : range of the number of frames per call.
    sizes : range of input sizes.
    print_trtexec : write the graph, and print the commands for trtexec.
    """

    HELP_PANEL: ClassVar[str] = (
        'TensorRT (needs pip install "edgeseg\\[tensorrt]" or "edgeseg\\[tensorrt-rtx]")'
    )

    sm: Annotated[
        str | None,
        typer.Option(
            metavar="75,86,...",
            help="Build for these compute capabilities (TensorRT-RTX only).",
        ),
    ] = None
    workspace: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="MIB",
            help="Limit of scratch memory in MiB.",
        ),
    ] = None
    level: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=5,
            help="How long TensorRT searches for fast kernels: 0 short, 5 long.",
        ),
    ] = None
    timing_cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep the times of measured kernels in this file (not with TensorRT-RTX).",
        ),
    ] = None
    scores: Annotated[
        bool,
        typer.Option(
            "--scores",
            help="The plan returns the logits, too.",
        ),
    ] = False
    version_compatible: Annotated[
        bool,
        typer.Option(
            "--version-compatible",
            help="Later minor versions of TensorRT open the plan, too.",
        ),
    ] = False
    kernels: Annotated[
        bool,
        typer.Option(
            "--kernels",
            help="Resize frames and paint pictures on the GPU (needs edgeseg build-plugin).",
        ),
    ] = False
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="N|MIN:BEST:MAX",
            help="Number of frames per call: 8 stands for 1:8:8.",
        ),
    ] = None
    sizes: Annotated[
        str | None,
        typer.Option(
            metavar="MIN:BEST:MAX",
            help="Input sizes of the plan, such as 352x480:720x960:1056x1920 (HxW each).",
        ),
    ] = None
    print_trtexec: Annotated[
        bool,
        typer.Option(
            "--print-trtexec",
            help="Write the graph that TensorRT gets beside the engine, and print the trtexec "
            "commands that build and run it.",
        ),
    ] = False

    def plan(self, unpool: str, *, prove: bool) -> "PlanOptions":
        """Parse the options; ``unpool`` and ``prove`` are for the CPU, too.

        Parameters
        ----------
        unpool : how to unpool: ``native``, ``plugin`` or ``auto``.
        prove : compare the engine's labels with those of the ONNX file.

        Raises
        ------
        InputError : an option cannot be read.
        """
        from edgeseg.backends.base import PlanOptions

        return PlanOptions(
            unpool=unpool,
            sm=parse_capabilities(self.sm),
            workspace_mib=self.workspace,
            level=self.level,
            timing_cache=self.timing_cache,
            scores=self.scores,
            version_compatible=self.version_compatible,
            kernels=self.kernels,
            batch=parse_batches(self.batch),
            sizes=parse_sizes(self.sizes),
            save_graph=self.print_trtexec,
            prove=prove,
        )


def parse_capabilities(text: str | None) -> tuple[int, ...]:
    """Parse compute capabilities.

    Parameters
    ----------
    text : capabilities with commas between them: ``86``, ``8.6`` or ``sm86``; None for none.

    Raises
    ------
    InputError : the text is not such a list.

    Examples
    --------
    >>> parse_capabilities("75,8.6")
    (75, 86)
    """
    if not text:
        return ()

    words = text.replace(".", "").replace("sm", "").split(",")
    capabilities = tuple(whole_number(word.strip()) for word in words)
    if not all(capabilities):
        raise InputError(
            "--sm: not compute capabilities",
            got=repr(text),
            expected="numbers such as 75,86 or 8.6",
        )
    return capabilities


def parse_batches(text: str | None) -> tuple[int, int, int]:
    """Parse the range of the number of frames per call.

    Parameters
    ----------
    text : one number, or ``MIN:BEST:MAX``; None for one frame.

    Returns
    -------
    The smallest, the best and the largest number; one number N stands for (1, N, N).

    Raises
    ------
    InputError : the text is not such a range.

    Examples
    --------
    >>> parse_batches("8"), parse_batches("1:4:8")
    ((1, 8, 8), (1, 4, 8))
    """
    if text is None:
        return 1, 1, 1

    numbers = [whole_number(word) for word in text.split(":")]
    if len(numbers) == 1:
        numbers = [1, numbers[0], numbers[0]]
    if len(numbers) != 3 or not 1 <= numbers[0] <= numbers[1] <= numbers[2]:
        raise InputError(
            "--batch: not a range of batches",
            got=repr(text),
            expected="a number such as 8 (1 to 8), or MIN:BEST:MAX such as 1:4:8",
        )
    return numbers[0], numbers[1], numbers[2]


def parse_sizes(text: str | None) -> tuple[tuple[int, int], ...]:
    """Parse the range of input sizes.

    Parameters
    ----------
    text : ``MIN:BEST:MAX``, each ``HEIGHTxWIDTH``; None for the spec's size only.

    Returns
    -------
    Three sizes (H, W), or an empty tuple.

    Raises
    ------
    InputError : the text is not such a range.

    Examples
    --------
    >>> parse_sizes("352x480:720x960:1056x1920")
    ((352, 480), (720, 960), (1056, 1920))
    """
    if text is None:
        return ()

    words = text.split(":")
    if len(words) != 3:
        raise InputError(
            "--sizes: not a range of sizes",
            got=repr(text),
            expected="MIN:BEST:MAX, such as 352x480:720x960:1056x1920",
        )
    return tuple(parse_size(word, "--sizes") for word in words)
