"""Run a graph with open dimensions, to prove that the network follows them."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgeseg.errors import GraphError
from edgeseg.graph.passes.dynamic_shapes import DynamicShapes, Size, by_text, follow_advice

# Share of labels that a frame has alone and in a batch: another order of sums changes labels that
# nearly tie.
_SAME_LABELS = 0.9


def check_runs(model: onnx.ModelProto, name: str, size: Size, dynamic: DynamicShapes) -> None:
    """Run a deployed graph with ONNX Runtime at its least, best and largest size.

    If the batch is open, run two frames at once as well.

    Parameters
    ----------
    model : the lowered graph, from ``frame`` to ``labels``.
    name : the network's name, for the error.
    size : height and width if they are fixed.
    dynamic : the open dimensions.

    Raises
    ------
    GraphError : a run fails, gives label maps of another size, or labels in a batch that differ
        from a frame alone.
    """
    session = _session(model, name)

    # 1. One frame of every size.
    for shape in dict.fromkeys(dynamic.sizes or (size,)):
        _labels(session, name, np.zeros((1, *shape, 3), np.uint8), dynamic)

    # 2. Two random frames, together and alone.
    if dynamic.batch:
        smallest = dynamic.sizes[0] if dynamic.sizes else size
        frames = np.random.default_rng(0).integers(0, 256, (2, *smallest, 3), np.uint8)
        both = _labels(session, name, frames, dynamic)
        alone = np.concatenate([_labels(session, name, frame[None], dynamic) for frame in frames])
        same = float((both == alone).mean())
        if same < _SAME_LABELS:
            raise GraphError(
                f"{name}: mixes the frames of a batch",
                got=f"{100 * same:.1f} % of labels as for a frame alone",
                hint=follow_advice(True),
            )


def _session(model: onnx.ModelProto, name: str) -> Any:
    """Open a graph with ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, not logged
    options.enable_cpu_mem_arena = False
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        raise GraphError(
            f"{name}: ONNX Runtime cannot open the graph",
            got=str(error).splitlines()[0][:300],
            hint=follow_advice(False),
        ) from error


def _labels(
    session: Any, name: str, frames: npt.NDArray[np.uint8], dynamic: DynamicShapes
) -> npt.NDArray[np.uint8]:
    """Return the labels (N, H, W) of frames (N, H, W, 3); raise ``GraphError`` if a run fails."""
    at = f"{len(frames)} frame{'s' if len(frames) > 1 else ''} of {by_text(frames.shape[1:3])}"
    hint = follow_advice(len(frames) > 1 or not dynamic.sizes)
    try:
        (labels,) = session.run(["labels"], {"frame": frames})
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        reason = " ".join(str(error).split())[:300]
        raise GraphError(f"{name}: cannot take {at}", got=reason, hint=hint) from error

    if labels.shape != frames.shape[:3]:
        got = f"labels of {labels.shape}"
        raise GraphError(f"{name}: cannot take {at}", got=got, expected=frames.shape[:3], hint=hint)
    return np.asarray(labels, np.uint8)
