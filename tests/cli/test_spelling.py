"""Check how the command line prints library messages: parameters become options, calls commands."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeseg.cli.console import escape
from edgeseg.cli.spelling import as_options

LIBRARY = Path(__file__).resolve().parents[2] / "edgeseg"


@pytest.mark.parametrize(
    ("message", "printed"),
    [
        (
            "Give `calib=camvid:PATH`, or leave `max_miou_drop` out.",
            "Give --calib camvid:PATH, or leave --max-miou-drop out.",
        ),
        ("Give one: `size=HEIGHTxWIDTH`.", "Give one: --size HEIGHTxWIDTH."),
        (
            "Leave these layers in float: `keep_float=a` `keep_float=b`;",
            "Leave these layers in float: --keep-float a --keep-float b;",
        ),
        ("`mean`, `std` or `scale`", "--mean, --std or --scale"),
    ],
)
def test_parameters_become_options(message: str, printed: str) -> None:
    assert as_options(message) == printed


@pytest.mark.parametrize(
    ("message", "printed"),
    [
        ("`precision=int8`", "--int8"),
        ("`precision=fp32`", "--precision fp32"),
        ("`precision`", "--precision"),
        ("`workspace_mib`", "--workspace"),
        (
            "`least_agreement`, `least_mean_iou`, `least_class_iou`",
            "--min-agreement, --min-iou, --min-class-iou",
        ),
        ("`json` `json=FILE`", "--json --json FILE"),
        ("`archs=87`", "--arch 87"),
        ("`arguments=weights=None`", "--arg weights=None"),
        ("another folder with `out`", "another folder with --out"),
        ("use `out=VIDEO`", "use -o VIDEO"),
    ],
)
def test_options_of_another_name(message: str, printed: str) -> None:
    assert as_options(message) == printed


@pytest.mark.parametrize(
    "switch", ["scores", "kernels", "version_compatible", "show", "half", "check"]
)
def test_a_switch_has_no_value(switch: str) -> None:
    option = "--" + switch.replace("_", "-")
    assert as_options(f"`{switch}` `{switch}=True`") == f"{option} {option}"


@pytest.mark.parametrize(
    ("message", "printed"),
    [
        ("`sm=75,86`", "--sm 75,86"),
        ("`mean=0.485,0.456,0.406`", "--mean 0.485,0.456,0.406"),
        (
            "`build_engine(net.onnx, target=tensorrt-rtx, sm=75,86)`",
            "edgeseg build-engine net.onnx --target tensorrt-rtx --sm 75,86",
        ),
        ("`batch=1:BEST:LARGEST`", "--batch 1:BEST:LARGEST"),
        ("`source=synthetic://?length=8&seed=3`", "--source synthetic://?length=8&seed=3"),
    ],
)
def test_values_stay_as_they_are(message: str, printed: str) -> None:
    assert as_options(message) == printed


@pytest.mark.parametrize(
    ("message", "printed"),
    [
        ("Build it: `build_engine()`.", "Build it: edgeseg build-engine."),
        ("`train(RECIPE)`", "edgeseg train RECIPE"),
        ("`compare(..., json=FILE)`", "edgeseg compare ... --json FILE"),
        ("`segment(ENGINE, SOURCE, out=VIDEO)`", "edgeseg segment ENGINE SOURCE -o VIDEO"),
        ("`segment(show=True)` needs a desktop", "edgeseg segment --show needs a desktop"),
        (
            "`build_engine(x.onnx, precision=int8, calib=SET)`",
            "edgeseg build-engine x.onnx --int8 --calib SET",
        ),
        ("`build_engine(x (1).onnx, scores=True)`", "edgeseg build-engine x (1).onnx --scores"),
        (
            "`build_engine(a=b.onnx, unpool=native)`",
            "edgeseg build-engine a=b.onnx --unpool native",
        ),
        (
            "`build_plugin(out=/x/lib.so, tensorrt_include=DIR)`",
            "edgeseg build-plugin -o /x/lib.so --tensorrt-include DIR",
        ),
    ],
)
def test_calls_become_commands(message: str, printed: str) -> None:
    assert as_options(message) == printed


@pytest.mark.parametrize(
    "message",
    [
        "",
        "no such file: got 'x.onnx', expected a=b (c).",
        "size=3 and build_engine(x) without backticks",
        "one backtick ` and no more",
        "`torch.save(net.state_dict())`",
        "`softmax`",
        "`num_classes=3` of another library",
        "`load_state_dict(x)`",
        "`NAME`",
        "`package.module:factory`",
        "`--size 3`",
        "`` and ` `",
        "`engine` is given by place, and has no option",
    ],
)
def test_other_text_stays(message: str) -> None:
    assert as_options(message) == message


def test_it_may_be_spelled_twice() -> None:
    """Text that was spelled for JSON is printed, too, and must not change again."""
    once = as_options("Build it: `build_engine(x.onnx, out=y.engine)`; leave `size` out.")
    assert as_options(once) == once


def test_what_is_printed_is_spelled_and_no_markup() -> None:
    assert escape("[bold]: leave\n`size` out") == r"\[bold]: leave --size out"


def texts() -> Iterator[tuple[str, str]]:
    """Yield place and text of the library's strings but docstrings, ``X`` for filled-in values."""
    for path in sorted(LIBRARY.rglob("*.py")):
        if path.is_relative_to(LIBRARY / "cli"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            place = f"{path.relative_to(LIBRARY)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.JoinedStr):
                skipped |= {id(part) for part in node.values}
                yield (
                    place,
                    "".join(
                        str(p.value) if isinstance(p, ast.Constant) else "X" for p in node.values
                    ),
                )
            elif (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in skipped
            ):
                yield place, node.value


# Printed as they are: keys of a recipe, such as `fit.batch`, and of `data.toml`; lines of files,
# which have a space or a star in them; filled-in values; and what stands in a message that only a
# program can meet, such as that of a closed engine.
PRINTED_AS_IT_IS = re.compile(
    r"`([a-z]+\.[a-z_]+|root|ids|ignore_ids|categories|[^`]*[ *][^`]*|X"
    r"|load_engine|strength|expand_sources|merge)`"
)


def test_every_parameter_that_a_message_names_has_an_option() -> None:
    """Otherwise a message would name something that the command line does not have."""
    named: list[tuple[str, str]] = []
    for place, text in texts():
        for span in re.findall(r"`[^`]+`", text):
            if not PRINTED_AS_IT_IS.fullmatch(span):
                named.append((place, span))
    assert len(named) > 50
    assert [f"{place}: {span}" for place, span in named if "`" in as_options(span)] == []
