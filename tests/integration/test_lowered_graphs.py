"""The graphs that targets are given, byte for byte, for every net that ships and every net of the
registry.

`lowered_graphs.json` has their digests. A change that is meant to leave graphs alone leaves that
file alone. A change that is meant to change them records them again, and says so in its commit:

    EDGESEG_RECORD=1 python -m pytest tests/integration/test_lowered_graphs.py
"""

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from lowered import deploy, deploy_bare

from edgeseg.graph.network import Network, load_network
from edgeseg.graph.ops import is_quantized
from edgeseg.graph.passes.dynamic_shapes import resolve_dynamic_shapes
from edgeseg.graph.passes.fp16 import to_fp16
from edgeseg.models import REGISTRY
from edgeseg.quantize.ptq import QuantizationPlan, fold_network
from edgeseg.quantize.ranges import Ranges
from edgeseg.zoo import zoo, zoo_int8

RECORD = Path(__file__).resolve().parent / "lowered_graphs.json"
# Of every tensor: what calibration finds differs in its last bits from one processor to the next
RANGE = 3.0

Forms = dict[str, Callable[[], onnx.ModelProto]]


def float_forms(net: Network) -> Forms:
    """Return what a float net is lowered to."""
    return {
        "openvino": lambda: deploy(net),
        "openvino, compare": lambda: deploy(net, compare=True),
        "openvino, scores": lambda: deploy(net, scores=True),
        "openvino, extension": lambda: deploy(net, plugin=True),
        "tensorrt": lambda: deploy(net, for_openvino=False),
        "tensorrt, plugin, both": lambda: deploy(net, for_openvino=False, plugin=True, both=True),
        "tensorrt, batch": lambda: deploy(
            net, for_openvino=False, dynamic=resolve_dynamic_shapes(net, True, ())
        ),
        "tensorrt, bare": lambda: deploy_bare(net, plugin=True),
        "tensorrt, fp16": lambda: to_fp16(deploy(net, for_openvino=False), {}).model,
    }


def int8_forms(net: Network) -> Forms:
    """Return what a Q/DQ net is lowered to."""
    return {
        "the file": lambda: net.model,
        "openvino, signed": lambda: deploy(net),
        "openvino, unsigned": lambda: deploy(net, unsigned=True),
        "openvino, unsigned, extension": lambda: deploy(
            net, unsigned=True, plugin=True, compare=True
        ),
        "tensorrt": lambda: deploy(net, for_openvino=False),
        "tensorrt, plugin": lambda: deploy(net, for_openvino=False, plugin=True),
    }


def quantized(net: Network, *, exact: bool) -> Network:
    """Return ``net`` in INT8, every range the same."""
    base = fold_network(net)
    amax = dict.fromkeys(base.tensors_to_range, RANGE)
    ranges = Ranges(method="minmax", bits=8, frames=1, amax=amax)
    prepared = QuantizationPlan(base, ranges, from_cache=False, exact=exact)
    return prepared.quantized(prepared.placement())


# Of the nets of the registry, some with 100 MB of weights.
FEWER = (
    "openvino",
    "tensorrt, plugin, both",
    "tensorrt, fp16",
    "int8: openvino, signed",
    "int8: openvino, unsigned, extension",
    "int8: tensorrt, plugin",
)


def digests(net: Network, wanted: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the digest of every form of ``net``, or of those ``wanted``."""
    if is_quantized(net.model):
        forms = int8_forms(net)
    else:
        forms = float_forms(net)
        for name, exact in (("int8", True), ("int8, any scales", False)):
            if not wanted or any(form.startswith(f"{name}:") for form in wanted):
                forms |= {
                    f"{name}: {form}": make
                    for form, make in int8_forms(quantized(net, exact=exact)).items()
                }
    return {
        form: hashlib.sha256(make().SerializeToString(deterministic=True)).hexdigest()[:16]
        for form, make in forms.items()
        if not wanted or form in wanted
    }


def compare(
    name: str, net: Network, packages: tuple[str, ...], wanted: tuple[str, ...] = ()
) -> None:
    """Compare the digests of a net with those on record, or record them."""
    versions = {package: importlib.metadata.version(package) for package in packages}
    known = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    if os.environ.get("EDGESEG_RECORD"):
        known[name] = {"versions": versions, "digests": digests(net, wanted)}
        RECORD.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
        return
    if known[name]["versions"] != versions:
        pytest.skip(f"recorded with {known[name]['versions']}, and here are {versions}")
    assert digests(net, wanted) == known[name]["digests"]


@pytest.mark.parametrize(
    "path", [*zoo().values(), *(p for p in map(zoo_int8, zoo()) if p)], ids=lambda p: p.stem
)
def test_nets_that_ship(path: Path) -> None:
    compare(path.stem, load_network(path), ("onnx",))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(REGISTRY))
def test_nets_of_the_registry(name: str) -> None:
    """Of an odd size, as `test_every_net` reads them, too."""
    pytest.importorskip("torch")
    from registry_nets import odd_onnx

    compare(name, load_network(odd_onnx(name)), ("onnx", "onnxsim", "torch"), FEWER)
