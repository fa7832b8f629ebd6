"""Compute with sizes: integers, and integers times symbols such as ``batch`` or ``height/8``."""

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto

# A size or an integer of a shape computation: coefficient x symbols, as (2, ("batch",)).
# (7, ()) is the number 7.
Int = tuple[int, tuple[str, ...]]
Ints = npt.NDArray[np.object_]


def number(value: int) -> Int:
    """Return an integer as an ``Int``.

    Parameters
    ----------
    value : the integer.

    Examples
    --------
    >>> number(7)
    (7, ())
    """
    return (int(value), ())


def of_dimension(dim: onnx.TensorShapeProto.Dimension) -> Int | None:
    """Return a dimension of an ONNX file as a number or a symbol; ``None`` if it is unknown.

    Parameters
    ----------
    dim : the dimension.

    Examples
    --------
    >>> of_dimension(onnx.TensorShapeProto.Dimension(dim_param="batch"))
    (1, ('batch',))
    """
    if dim.HasField("dim_value"):
        return number(dim.dim_value)
    if dim.dim_param:
        return 1, (dim.dim_param,)
    return None


def as_dimension(size: Int | None) -> int | str | None:
    """Return a size as ``onnx.helper`` takes it: a number, a symbol, or ``None`` if it is unknown.

    Parameters
    ----------
    size : the size; a symbol must have the coefficient 1.

    Examples
    --------
    >>> as_dimension((1, ("batch",)))
    'batch'
    """
    if size is None:
        return None
    coefficient, symbols = size
    return symbols[0] if symbols else coefficient


def more_precise(before: Int | None, new: Int) -> Int | None:
    """Return the more precise of two values of one size.

    A symbol with a coefficient, or a product of symbols, cannot be written into an ONNX file.

    Parameters
    ----------
    before : the value so far, ``None`` if it is unknown.
    new : the new value.

    Examples
    --------
    >>> more_precise((1, ("height",)), (360, ()))
    (360, ())
    """
    if before is not None and (not before[1] or new[1]):
        return before
    can_be_written = not new[1] or (new[0] == 1 and len(new[1]) == 1)
    return new if can_be_written else before


def filled(shape: tuple[int, ...], items: list[Int]) -> Ints:
    """Return an array of sizes.

    Parameters
    ----------
    shape : the array's shape.
    items : its elements, in row-major order.

    Examples
    --------
    >>> filled((2,), [(1, ("batch",)), (3, ())]).tolist()
    [(1, ('batch',)), (3, ())]
    """
    out = np.empty(len(items), object)
    out[:] = items
    return out.reshape(shape)


def computed(node: NodeProto, inputs: list[Ints]) -> Ints | None:
    """Return the result of a node from known integers, for operators that exporters use on shapes.

    Parameters
    ----------
    node : a node of the ONNX standard.
    inputs : the values of its inputs.

    Returns
    -------
    The values; ``None`` if the operator is another one, or its result cannot be written as sizes.

    Examples
    --------
    >>> from onnx import helper
    >>> batch, two = filled((1,), [(1, ("batch",))]), filled((1,), [number(2)])
    >>> computed(helper.make_node("Mul", ["a", "b"], ["c"]), [batch, two]).tolist()
    [(2, ('batch',))]
    """
    data = inputs[0] if inputs else np.empty(0, object)
    rest = [_numbers(i) for i in inputs[1:]]
    op = node.op_type
    if op == "Identity":
        return data

    if op in ("Squeeze", "Unsqueeze", "Reshape"):
        # Shape vectors have at most one axis longer than one: every change of rank keeps the order.
        if op == "Reshape" and rest[0] not in ([], [-1], [1]):
            return None
        flat = data.ravel()
        is_scalar = flat.size == 1 and (op == "Squeeze" or rest == [[]])
        return flat.reshape(()) if is_scalar else flat

    if op == "Concat":
        return np.concatenate(inputs) if all(i.ndim == 1 for i in inputs) else None

    if op == "Gather" and rest[0] is not None and data.ndim == 1:
        index = np.asarray(rest[0]).reshape(inputs[1].shape)
        return np.asarray(data[index]) if inputs[1].ndim else filled((), [data[int(index)]])

    if op == "Slice" and data.ndim == 1 and len(rest) >= 2:
        start = rest[0]
        end = rest[1]
        step = rest[3] if len(rest) > 3 else [1]
        return data[start[0] : end[0] : step[0]] if start and end and step else None

    if op in ("Mul", "Add", "Sub", "Div") and len(inputs) == 2:
        return _arithmetic(op, *inputs)
    return None


def _numbers(values: Ints) -> list[int] | None:
    """Return the values as integers, or ``None`` if one is a symbol."""
    if any(symbols for _, symbols in values.ravel()):
        return None
    return [int(value) for value, _ in values.ravel()]


def _arithmetic(op: str, left: Ints, right: Ints) -> Ints | None:
    """Return the result of an operator on integers with symbols; ``None`` if it is no size."""
    a, b = np.broadcast_arrays(left, right)
    items: list[Int] = []
    for (x, xs), (y, ys) in zip(a.ravel(), b.ravel(), strict=True):
        if op == "Mul":
            items.append((x * y, tuple(sorted((*xs, *ys)))))
        elif op in ("Add", "Sub") and xs == ys:
            total = x + y if op == "Add" else x - y
            items.append((total, xs if total else ()))
        elif op in ("Add", "Sub") and not y:
            items.append((x, xs))
        elif op == "Div" and y > 0 and not ys and x >= 0 and (not xs or x % y == 0):
            items.append((x // y, xs))
        else:
            return None
    return filled(a.shape, items)
