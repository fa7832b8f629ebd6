"""Write a Q/DQ network as an ONNX file for other targets and tools."""

import json
from pathlib import Path

import onnx

from edgeseg.errors import GraphError
from edgeseg.facts import Int8Facts
from edgeseg.files import write_bytes
from edgeseg.graph.graph import infer_shapes
from edgeseg.graph.network import Network
from edgeseg.graph.nodes import copied
from edgeseg.quantize.qdq import INT8_KEY
from edgeseg.spec import METADATA_KEY

_SHARED_FACTS = ("source", "split", "choose", "seed", "digest")


def write_quantized(network: Network, facts: Int8Facts, path: Path) -> None:
    """Write a Q/DQ network, with its spec and how it was quantized in its metadata.

    Parameters
    ----------
    network : the Q/DQ network; it is not changed.
    facts : how it was quantized.
    path : the ONNX file to write.

    Raises
    ------
    GraphError : the graph is not valid ONNX, for example because of an operator of another tool.
    OutputError : the file cannot be written.
    """
    model = copied(network.model)
    _set_properties(model, network, facts)
    _clear_shapes(model)
    try:
        model = infer_shapes(model)
        _give_rank(model, network)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # raised as several types, all of them about the graph
        raise GraphError(
            f"{path}: the net makes no standard ONNX file",
            got=" ".join(str(error).split())[:300],
            hint="Leave `save_onnx` out; or bring the net into standard form first: onnxsim "
            "NET.onnx NET.onnx.",
        ) from error

    write_bytes(path, model.SerializeToString())


def without_folders(source: str) -> str:
    """Return a calibration set's address without the folders of this machine.

    Parameters
    ----------
    source : the address.

    Examples
    --------
    >>> without_folders("camvid:/home/me/data/CamVid")
    'camvid:CamVid'
    >>> without_folders("synthetic://?length=8")
    'synthetic://?length=8'
    """
    if "://" in source:
        return source
    reader, colon, path = source.rpartition(":")
    return f"{reader}{colon}{Path(path).name}"


def _set_properties(model: onnx.ModelProto, network: Network, facts: Int8Facts) -> None:
    """Write the spec and the facts into the model's metadata, in place; keep other metadata."""
    calibration = facts.calibration
    shared = {key: calibration.get(key) for key in _SHARED_FACTS}
    if calibration:
        shared["source"] = without_folders(calibration["source"])

    made = {
        "method": facts.method,
        "scales": facts.scales,
        "calibration": shared,
        "frames": len(calibration.get("frames", [])),
        "float_layers": facts.float_layers,
        "from_onnx_sha256": network.sha256,
    }
    properties = {METADATA_KEY: network.spec.to_json(), INT8_KEY: json.dumps(made)}

    kept = {item.key: item.value for item in model.metadata_props if item.key not in properties}
    del model.metadata_props[:]
    for key, value in {**kept, **properties}.items():
        model.metadata_props.add(key=key, value=value)


def _clear_shapes(model: onnx.ModelProto) -> None:
    """Remove shapes that may be wrong, in place: some exporters write -1, or nothing."""
    for value in (*model.graph.input, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_value < 0:
                dimension.Clear()
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]


def _give_rank(model: onnx.ModelProto, network: Network) -> None:
    """Give the network's output a rank if inference found none, in place.

    Shape inference stops at operators that it does not know.
    """
    rank = 3 if network.form == "labels" else 4
    for output in model.graph.output:
        if output.name == network.output and not output.type.tensor_type.HasField("shape"):
            for _ in range(rank):
                output.type.tensor_type.shape.dim.add()
