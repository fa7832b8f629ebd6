"""Describe the batches and sizes that a plan takes: its optimization profile, and its passport."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeseg.backends.base import ONE_FRAME, PlanOptions
from edgeseg.errors import EngineError, InputError
from edgeseg.facts import TensorRTFacts
from edgeseg.graph.network import Network
from edgeseg.graph.passes.dynamic_shapes import DynamicShapes, resolve_dynamic_shapes


@dataclass(frozen=True)
class Profile:
    """Hold the range of batches and sizes of a plan.

    Attributes
    ----------
    batch : smallest, best and largest number of frames per run.
    sizes : smallest, best and largest (H, W); empty if the plan takes only the network's own size.
    step : heights and widths are multiples of it.

    Examples
    --------
    >>> profile = Profile(batch=(1, 4, 8), sizes=((64, 96), (64, 96), (96, 128)), step=8)
    >>> profile.shapes((64, 96))
    ((1, 64, 96, 3), (4, 64, 96, 3), (8, 96, 128, 3))
    >>> profile.takes((72, 104)), profile.takes((70, 104))
    (True, False)
    """

    batch: tuple[int, int, int] = ONE_FRAME
    sizes: tuple[tuple[int, int], ...] = ()
    step: int = 1

    @property
    def any(self) -> bool:
        """Return True if the batch or the size is dynamic."""
        return self.batch != ONE_FRAME or bool(self.sizes)

    @property
    def dynamic(self) -> DynamicShapes:
        """Return what is dynamic in the graph."""
        return DynamicShapes(self.batch != ONE_FRAME, self.sizes, self.step)

    def shapes(self, own: tuple[int, int]) -> tuple[tuple[int, int, int, int], ...]:
        """Return the smallest, best and largest shape (N, H, W, 3) of the tensor ``frame``.

        Parameters
        ----------
        own : the network's own size (H, W).
        """
        sizes = self.sizes or (own, own, own)
        shapes: list[tuple[int, int, int, int]] = []
        for count, (height, width) in zip(self.batch, sizes, strict=True):
            shapes.append((count, height, width, 3))
        return tuple(shapes)

    def tensor(self, own: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the shape of ``frame`` in a plan: (N, H, W, 3), -1 for a dynamic dimension.

        Parameters
        ----------
        own : the network's own size (H, W).

        Examples
        --------
        >>> Profile(batch=(1, 4, 8)).tensor((64, 96))
        (-1, 64, 96, 3)
        """
        dims = self.dynamic.dims(own)
        batch, height, width = (-1 if isinstance(side, str) else side for side in dims)
        return batch, height, width, 3

    def told(self, shape: tuple[int, ...], own: tuple[int, int]) -> tuple[int, ...]:
        """Return the shape of a plan's tensor with -1 for every dynamic dimension.

        A dynamic dimension whose range is a single number may be that number in the plan.

        Parameters
        ----------
        shape : (N, H, W) or (N, H, W, 3), as the plan reports it.
        own : the network's own size (H, W).

        Examples
        --------
        >>> Profile(batch=(4, 4, 4)).told((4, 64, 96), (64, 96))
        (-1, 64, 96)
        """
        smallest, _, largest = self.shapes(own)
        sides: list[int] = []
        for side, dim, low, high in zip(shape, self.tensor(own), smallest, largest, strict=False):
            is_fixed_dynamic = dim == -1 and side == low == high
            sides.append(-1 if is_fixed_dynamic else side)
        return tuple(sides)

    def takes(self, size: tuple[int, int]) -> bool:
        """Return True if frames of a size run without resizing because the size is in the range.

        Parameters
        ----------
        size : (H, W).
        """
        if not self.sizes or len(size) != 2:
            return False

        smallest, _, largest = self.sizes
        for low, side, high in zip(smallest, size, largest, strict=True):
            if not low <= side <= high or side % self.step:
                return False
        return True

    def facts(self) -> dict[str, Any]:
        """Return the fields of ``TensorRTFacts`` that hold this profile.

        Examples
        --------
        >>> TensorRTFacts(**Profile(batch=(1, 4, 8)).facts()).batch
        (1, 4, 8)
        """
        step = self.step if self.sizes else 1
        return {"batch": self.batch, "sizes": self.sizes, "size_step": step}

    @classmethod
    def of(cls, facts: TensorRTFacts) -> "Profile":
        """Return the profile of a plan from its passport.

        Parameters
        ----------
        facts : the plan's facts.

        Raises
        ------
        EngineError : the facts are damaged: the batches or sizes do not rise.

        Examples
        --------
        >>> Profile.of(TensorRTFacts(batch=(1, 4, 8))).batch
        (1, 4, 8)
        """
        try:
            check_profile(PlanOptions(batch=facts.batch, sizes=facts.sizes))
        except InputError as error:
            raise EngineError(
                "the passport's ranges cannot be read",
                got=f"batch {facts.batch}, sizes {facts.sizes}, step {facts.size_step}",
                hint="Build the engine again.",
            ) from error
        return cls(facts.batch, facts.sizes, facts.size_step)


def profile_for(network: Network, options: PlanOptions) -> Profile:
    """Return the profile of a plan of ``network``.

    Parameters
    ----------
    network : a float network or a Q/DQ network.
    options : the range of batches and sizes.

    Raises
    ------
    InputError, GraphError : ``dynamic_shapes.resolve_dynamic_shapes`` refuses the sizes, or the
        network does not follow them.
    """
    dynamic = resolve_dynamic_shapes(network, options.batch != ONE_FRAME, options.sizes)
    return Profile(options.batch, options.sizes, dynamic.step)


def check_profile(options: PlanOptions) -> None:
    """Raise ``InputError`` if the batches or the sizes do not rise from smallest to largest.

    Parameters
    ----------
    options : the range of batches and sizes.

    Examples
    --------
    >>> check_profile(PlanOptions(batch=(1, 4, 8)))
    """
    batch = options.batch
    if len(batch) != 3 or not _rises(batch):
        expected = "least, best and largest, each at least 1"
        raise InputError("not a range of batches", got=batch, expected=expected)

    sizes = options.sizes
    if not sizes:
        return
    heights = [height for height, _ in sizes]
    widths = [width for _, width in sizes]
    if len(sizes) != 3 or not _rises(heights) or not _rises(widths):
        expected = "the least, the best and the largest (H, W)"
        raise InputError("not a range of sizes", got=sizes, expected=expected)


def _rises(sides: Sequence[int]) -> bool:
    """Return True if three numbers are at least 1 and none is below the one before it."""
    return 1 <= sides[0] <= sides[1] <= sides[2]
