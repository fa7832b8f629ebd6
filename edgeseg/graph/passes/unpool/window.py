"""The geometry of max-pooling."""

from dataclasses import dataclass

from onnx import NodeProto, helper

from edgeseg.errors import GraphError
from edgeseg.graph.graph import Graph
from edgeseg.graph.nodes import attributes, ints_attribute, title
from edgeseg.graph.sizes import Int


@dataclass(frozen=True)
class Window:
    """Hold the geometry of a ``MaxPool``, one number per spatial axis.

    Attributes
    ----------
    kernel : the sides of the window.
    strides : the steps between windows.
    pads : the padding in front of every axis, then behind every axis.
    dilations : the steps between the elements of a window.
    ceil : True if the output's size is rounded up.
    column_major : True if positions count along columns.
    """

    kernel: list[int]
    strides: list[int]
    pads: list[int]
    dilations: list[int]
    ceil: bool
    column_major: bool

    @classmethod
    def of(cls, node: NodeProto, graph: Graph) -> "Window":
        """Return the geometry of a pooling.

        Parameters
        ----------
        node : a ``MaxPool`` node.
        graph : its graph.

        Raises
        ------
        GraphError : ``auto_pad`` cannot be written as numbers, or a window may hold only padding.
        """
        kernel = ints_attribute(node, "kernel_shape", [])
        rank = len(kernel)
        attrs = attributes(node)
        strides = ints_attribute(node, "strides", [1] * rank)
        dilations = ints_attribute(node, "dilations", [1] * rank)

        # Padding in numbers.
        mode = attrs.get("auto_pad", b"NOTSET")
        if mode in (b"SAME_UPPER", b"SAME_LOWER"):
            pads = _same_pads(node, graph, kernel, strides, dilations, upper=mode == b"SAME_UPPER")
        elif mode == b"NOTSET":
            pads = ints_attribute(node, "pads", [0] * 2 * rank)
        else:
            pads = [0] * 2 * rank

        # SAME states the output's size itself. One dimension has no columns: ONNX Runtime ignores
        # their order there.
        ceil = bool(attrs.get("ceil_mode", 0)) and mode in (b"NOTSET", b"VALID")
        column_major = bool(attrs.get("storage_order", 0)) and rank > 1
        window = cls(kernel, strides, pads, dilations, ceil, column_major)
        if ceil:
            window._refuse_empty(node, graph.shape(node.input[0]))
        return window

    def _refuse_empty(self, node: NodeProto, shape: list[Int | None] | None) -> None:
        """Raise ``GraphError`` if a last window may hold only padding, which ``ceil_mode`` allows.

        Runtimes do not agree whether such a window counts.
        """
        rank = len(self.kernel)
        for axis, (k, s, d) in enumerate(
            zip(self.kernel, self.strides, self.dilations, strict=True)
        ):
            begin = self.pads[axis]
            end = self.pads[axis + rank]
            reach = (k - 1) * d + 1
            # A window that starts behind the last element would start a stride behind a complete
            # one.
            if s + end <= reach:
                continue
            size = _fixed(shape, axis)
            if size is None or -(-(size + begin + end - reach) // s) * s >= size + begin:
                raise GraphError(
                    f"{title(node)}: ceil_mode makes a window that holds only padding",
                    got=(
                        f"kernel {k}, stride {s}, padding {begin} and {end}, "
                        f"size {size or 'unknown'}"
                    ),
                    expected="windows that hold an element",
                    hint="Export with ceil_mode=False.",
                )

    def without_positions(self, node: NodeProto) -> NodeProto:
        """Return a copy of a pooling without Indices, its padding in numbers.

        Parameters
        ----------
        node : the ``MaxPool`` node that this is the geometry of.
        """
        plain = NodeProto()
        plain.CopyFrom(node)
        del plain.output[1:], plain.attribute[:]
        replaced = ("storage_order", "auto_pad", "pads", "ceil_mode")
        plain.attribute.extend(a for a in node.attribute if a.name not in replaced)
        plain.attribute.append(helper.make_attribute("pads", self.pads))
        plain.attribute.append(helper.make_attribute("ceil_mode", int(self.ceil)))
        return plain

    def last_position(self, shape: list[int], maxima: list[int]) -> int:
        """Return the largest of the Indices that a pooling can give.

        Parameters
        ----------
        shape : the shape of its input.
        maxima : the shape of its output.
        """
        # The last element of the last window on each axis.
        rank = len(self.kernel)
        axes = zip(
            shape[2:],
            maxima[2:],
            self.kernel,
            self.strides,
            self.pads[:rank],
            self.dilations,
            strict=True,
        )
        place = [
            min(size, (count - 1) * s - p + (k - 1) * d + 1) - 1 for size, count, k, s, p, d in axes
        ]

        # Its position in the whole tensor.
        sizes = shape[2:]
        if self.column_major:
            place = place[::-1]
            sizes = sizes[::-1]
        position = shape[0] * shape[1] - 1
        for size, at in zip(sizes, place, strict=True):
            position = position * size + at
        return position

    @property
    def overlaps(self) -> bool:
        """Return True if two windows may share an element."""
        reach = zip(self.kernel, self.strides, self.dilations, strict=True)
        return any((k - 1) * d >= s for k, s, d in reach)


def _fixed(shape: list[Int | None] | None, axis: int) -> int | None:
    """Return the size of a spatial axis, or ``None`` if it is not a number."""
    size = shape[2 + axis] if shape is not None else None
    return None if size is None or size[1] else size[0]


def _same_pads(
    node: NodeProto,
    graph: Graph,
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    *,
    upper: bool,
) -> list[int]:
    """Return the padding that ``auto_pad`` stands for.

    The output's size is ceil(input / stride); the odd element of padding goes to one side, the end
    if ``upper``.
    """
    shape = graph.shape(node.input[0])
    begin: list[int] = []
    end: list[int] = []
    for axis, (k, s, d) in enumerate(zip(kernel, strides, dilations, strict=True)):
        size = _fixed(shape, axis)
        total: int | None = None
        if s == 1:
            total = k - 1
        elif size is not None:
            total = (-(-size // s) - 1) * s + k - size
        # ONNX Runtime's own reading of the last two is not the standard's.
        if total is None or total < 0 or d != 1:
            raise GraphError(
                f"{title(node)}: auto_pad cannot be told in numbers",
                got=f"size {size or 'unknown'}, kernel {k}, stride {s}, dilation {d}",
                expected="a fixed size, a stride up to the kernel's size, no dilation",
                hint="Export with explicit pads, or fix the input's size.",
            )
        begin.append(total // 2 if upper else total - total // 2)
        end.append(total - begin[-1])
    return begin + end
