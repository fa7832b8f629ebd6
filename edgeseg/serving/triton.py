"""Write a model for NVIDIA Triton Inference Server: the model and its ``config.pbtxt``.

The model takes a frame and returns a label map. The fields of the configuration are those of
Triton's ``model_config.proto``. The deployed graph has a batch of one, which is part of its
``dims``: so ``max_batch_size`` is 0, and Triton puts no batch in front of them. A plan for 1 to N
frames has ``max_batch_size`` N, and ``dims`` without the batch.
"""

import re
from pathlib import Path

from edgeseg.errors import EngineError, InputError
from edgeseg.facts import LABELS_AND_SCORES, SCORES
from edgeseg.files import sha256_bytes
from edgeseg.graph.lowering import LoweringOptions, lower
from edgeseg.graph.network import Network
from edgeseg.passport import Passport
from edgeseg.serving.folder import require_ours, write_folder
from edgeseg.spec import METADATA_KEY, ModelSpec

_TENSORRT = "tensorrt"
_MODEL = {"onnxruntime_onnx": "1/model.onnx", "tensorrt_plan": "1/model.plan"}
_FILES = ("config.pbtxt", "labels.txt", "README.txt", *_MODEL.values())


def triton_from_network(network: Network, repository: str | Path) -> Path:
    """Write a network into a model repository, for Triton's ONNX Runtime backend.

    Parameters
    ----------
    network : a float network or a Q/DQ network.
    repository : folder of the repository; its other models are not touched.

    Returns
    -------
    The model's folder.

    Raises
    ------
    OutputError : the model's folder holds other files, or cannot be written.
    """
    name = safe_name(network.name)
    require_ours(Path(repository) / name, _FILES)
    data = lower(network, LoweringOptions(for_openvino=False)).model.SerializeToString()
    facts = {METADATA_KEY: network.spec.to_json(), "edgeseg.onnx_sha256": network.sha256}
    return _write(Path(repository), name, "onnxruntime_onnx", data, network.spec, facts)


def triton_from_engine(engine: str | Path, repository: str | Path) -> Path:
    """Write a TensorRT engine into a model repository, for Triton's TensorRT backend.

    Parameters
    ----------
    engine : the engine file; its passport must be beside it.
    repository : folder of the repository; its other models are not touched.

    Returns
    -------
    The model's folder.

    Raises
    ------
    InputError : there is no such engine.
    EngineError : not an engine for TensorRT, not the engine of its passport, or a plan that Triton
        cannot run.
    OutputError : the model's folder holds other files, or cannot be written.
    """
    engine = Path(engine)
    if not engine.is_file():
        raise InputError("no such engine", got=repr(str(engine)))
    passport = Passport.read(engine)
    if passport.target != _TENSORRT:
        raise EngineError(
            f"{engine}: Triton does not run an engine of this target",
            got=passport.target,
            expected=_TENSORRT,
            hint=f"Give the ONNX file it was built from: `export({passport.name}.onnx, "
            "triton=FOLDER)`.",
        )

    name = safe_name(passport.name)
    require_ours(Path(repository) / name, _FILES)

    # Check that Triton can run this plan.
    data = engine.read_bytes()
    if sha256_bytes(data) != passport.engine_sha256:
        raise EngineError(
            f"{engine}: is not the engine its passport describes (truncated or replaced)",
            got=f"{len(data):,} bytes with another hash",
            hint="Build it again: `build_engine(NAME.onnx, target=tensorrt)`.",
        )
    most = _largest_batch(engine, passport)
    compiled = passport.tensorrt
    if compiled.plugin and not compiled.version_compatible:
        raise EngineError(
            f"{engine}: this plan unpools by edgeseg's plugin, which Triton opens and does not "
            "register",
            got=compiled.plugin,
            hint="Build one for it: with `unpool=native`, or with `version_compatible`, which "
            "brings the plugin along.",
        )

    facts = {
        METADATA_KEY: passport.spec.to_json(),
        "edgeseg.onnx_sha256": passport.onnx_sha256,
        "edgeseg.precision": passport.precision,
        "edgeseg.built_with": f"{passport.library} {passport.library_version}",
        "edgeseg.built_for": passport.device,
    }
    scores = compiled.outputs == LABELS_AND_SCORES
    return _write(
        Path(repository), name, "tensorrt_plan", data, passport.spec, facts, most, scores=scores
    )


def _largest_batch(engine: Path, passport: Passport) -> int:
    """Return ``max_batch_size`` for a plan, 0 for one frame.

    Raise ``EngineError`` for a plan whose input sizes or batches Triton's configuration cannot
    express.
    """
    from edgeseg.backends.tensorrt.profiles import Profile

    if passport.tensorrt.outputs == SCORES:
        raise EngineError(
            f"{engine}: this plan is the net alone, and Triton would run it without edgeseg's "
            "kernels",
            got="`kernels`",
            hint="Build one for it without: `build_engine(NAME.onnx, target=tensorrt)`.",
        )

    ranges = Profile.of(passport.tensorrt)
    if ranges.sizes or ranges.batch[0] > 1:
        sizes = ":".join(f"{height}x{width}" for height, width in ranges.sizes)
        batches = ":".join(map(str, ranges.batch))
        raise EngineError(
            f"{engine}: Triton cannot be told what this plan takes",
            got=f"sizes {sizes}" if sizes else f"batches of {batches}",
            expected="one size, and a batch from 1 on",
            hint="Build one for it: `build_engine(NAME.onnx, target=tensorrt, "
            "batch=1:BEST:LARGEST)`.",
        )
    return ranges.batch[2] if ranges.any else 0


def safe_name(name: str) -> str:
    """Return a name of letters, digits, ``_``, ``-`` and dots, which Triton accepts.

    Parameters
    ----------
    name : any name; every other character becomes ``_``, and dots at its start are dropped.

    Examples
    --------
    >>> safe_name("my net/v2"), safe_name("...")
    ('my_net_v2', 'net')
    """
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip(".") or "net"


def _write(
    repository: Path,
    name: str,
    platform: str,
    data: bytes,
    spec: ModelSpec,
    facts: dict[str, str],
    most: int = 0,
    *,
    scores: bool = False,
) -> Path:
    """Write the model's folder, and return it."""
    files = {
        "config.pbtxt": config_text(name, platform, spec, facts, most, scores=scores).encode(),
        "labels.txt": "".join(f"{label}\n" for label in spec.labels.names).encode(),
        "README.txt": _readme(name, platform, spec, most, scores=scores).encode(),
        _MODEL[platform]: data,
    }
    return write_folder(repository / name, files)


def config_text(
    name: str,
    platform: str,
    spec: ModelSpec,
    facts: dict[str, str],
    most: int = 0,
    *,
    scores: bool = False,
) -> str:
    """Return the text of ``config.pbtxt``.

    Parameters
    ----------
    name : the model's name.
    platform : ``onnxruntime_onnx`` or ``tensorrt_plan``.
    spec : the model's spec.
    facts : parameters of the configuration, which a client can read from the server.
    most : the largest batch; 0 for a graph of one frame.
    scores : True if the model also returns logits, (1, classes, H, W) float32.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> spec = ModelSpec(architecture="enet", input_size=(4, 6), labels=CAMVID_11)
    >>> text = config_text("net", "onnxruntime_onnx", spec, {})
    >>> [line.strip() for line in text.splitlines() if "dims" in line]
    ['dims: [ 1, 4, 6, 3 ]', 'dims: [ 1, 4, 6 ]']
    """
    height, width = spec.input_size
    # A plan runs on a GPU; ONNX Runtime runs on a GPU if the server has one, else on the processor.
    kind = "KIND_GPU" if platform == "tensorrt_plan" else "KIND_AUTO"
    batch = [] if most else [1]

    # Comments, name and platform.
    lines = [
        "# Written by edgeseg export. The label map is no classification: labels.txt is for the",
        "# client, and label_filename, with which Triton answers in top-k strings, is left out.",
        f"name: {quoted(name)}",
    ]
    if platform == "onnxruntime_onnx":
        lines += [
            '# For the OpenVINO backend instead of ONNX Runtime: backend: "openvino" and',
            '# default_model_filename: "model.onnx" in place of the platform.',
        ]

    # Inputs, outputs and instances.
    lines += [
        f"platform: {quoted(platform)}",
        f"max_batch_size: {most}",
        *_tensor("input", "frame", [*batch, height, width, 3]),
        *_tensor("output", "labels", [*batch, height, width]),
    ]
    if scores:
        lines += _tensor("output", "scores", [*batch, len(spec.labels), height, width], "TYPE_FP32")
    lines += [
        "instance_group [",
        "  {",
        "    count: 1",
        f"    kind: {kind}",
        "  }",
        "]",
    ]

    lines += _parameters(facts)
    return "\n".join(lines) + "\n"


def _tensor(side: str, name: str, dims: list[int], kind: str = "TYPE_UINT8") -> list[str]:
    """Return the lines of one input or output."""
    sizes = ", ".join(map(str, dims))
    return [
        f"{side} [",
        "  {",
        f"    name: {quoted(name)}",
        f"    data_type: {kind}",
        f"    dims: [ {sizes} ]",
        "  }",
        "]",
    ]


def _parameters(facts: dict[str, str]) -> list[str]:
    """Return the lines of the parameters."""
    lines: list[str] = []
    for key, value in facts.items():
        lines += [
            "parameters {",
            f"  key: {quoted(key)}",
            "  value {",
            f"    string_value: {quoted(value)}",
            "  }",
            "}",
        ]
    return lines


def quoted(text: str) -> str:
    r"""Return a string literal of protobuf's text format.

    Parameters
    ----------
    text : any text. Bytes of its UTF-8 that are not printable ASCII are written in octal.

    Examples
    --------
    >>> print(quoted('a "b" \u00e9'))
    "a \"b\" \303\251"
    """
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    escaped = (chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in text.encode())
    return f'"{"".join(escaped)}"'


def _readme(
    name: str, platform: str, spec: ModelSpec, most: int = 0, *, scores: bool = False
) -> str:
    """Return the text of ``README.txt``: the tensors, how to serve the model and how to call it."""
    height, width = spec.input_size
    n = "N" if most else "1"
    batch = f"\n        N is 1 to {most}." if most else ""

    # What depends on the outputs, the batch and the platform.
    more = ""
    if scores:
        shape = f"({n}, {len(spec.labels)}, {height}, {width})"
        more = f"scores  {shape} float32, of which labels is the argmax: ask for outputs by name.\n"
    raw = "" if most or scores else _raw_call(name, height, width)
    gpus = ""
    release = ""
    plan_notes = ""
    if platform == "tensorrt_plan":
        gpus = "--gpus all "
        release = ", with the TensorRT version in edgeseg.built_with of config.pbtxt"
        plan_notes = """

A version-compatible engine needs --backend-config=tensorrt,version-compatible=true behind it. On a
Jetson with JetPack 6 the image is YY.MM-py3-igpu, and --runtime nvidia replaces --gpus all."""

    return f"""{name}: a model for Triton Inference Server, written by edgeseg export.

frame   ({n}, {height}, {width}, 3) uint8, BGR, the camera's frame resized to
        {height}x{width} (HxW). Mean, std and colour order are inside the model: send bytes.
labels  ({n}, {height}, {width}) uint8, class ids; line i of labels.txt (from 0) is the name of
        id i.{batch}
{more}
Serve the repository, the folder this one is in (YY.MM: a release of the server{release}):

  docker run --rm {gpus}-p 8000:8000 -v "$PWD:/models" nvcr.io/nvidia/tritonserver:YY.MM-py3 \\
    tritonserver --model-repository=/models{plan_notes}

Is it there, and what does it take?

  curl localhost:8000/v2/models/{name}/ready
  curl localhost:8000/v2/models/{name}/config

{raw}From Python (pip install 'tritonclient[http]' opencv-python):

  import cv2
  import tritonclient.http as triton

  client = triton.InferenceServerClient("localhost:8000")
  frame = cv2.imread("street.png")
  frame = cv2.resize(frame, ({width}, {height}), interpolation=cv2.INTER_AREA)[None]
  given = triton.InferInput("frame", list(frame.shape), "UINT8")
  given.set_data_from_numpy(frame)
  labels = client.infer("{name}", [given]).as_numpy("labels")[0]
"""


def _raw_call(name: str, height: int, width: int) -> str:
    """Return the part of ``README.txt`` on a call with ffmpeg and curl."""
    return f"""\
A frame as raw bytes ({height * width * 3} of them). The answer is a JSON header and, behind it,
the label map:

  ffmpeg -i street.png -vf scale={width}:{height} -pix_fmt bgr24 -f rawvideo frame.raw
  curl -X POST localhost:8000/v2/models/{name}/infer \\
    -H "Content-Type: application/octet-stream" -H "Inference-Header-Content-Length: 0" \\
    --data-binary @frame.raw | tail -c {height * width} >labels.raw

"""
