"""Which batches and sizes a plan serves: settled, in its optimization profile, in its passport and where it runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeseg.backends.base import ONE_FRAME, PlanOptions
from edgeseg.errors import EngineError, InputError
from edgeseg.graph.network import Network
from edgeseg.graph.passes.dynamic_shapes import DynamicShapes, resolve_dynamic_shapes

BATCH, SIZES, STEP = "batch", "sizes", "size_step"  # of a passport's settings


@dataclass(frozen=True)
class Profile:
    """``batch`` is (least, best, largest) frames; ``sizes`` three (H, W) of that order, or none: the net's own alone.

    Sides are multiples of ``step``.
    """

    batch: tuple[int, int, int] = ONE_FRAME
    sizes: tuple[tuple[int, int], ...] = ()
    step: int = 1

    @property
    def any(self) -> bool:
        """Whether anything is dynamic."""
        return self.batch != ONE_FRAME or bool(self.sizes)

    @property
    def dynamic(self) -> DynamicShapes:
        """What is dynamic in the graph."""
        return DynamicShapes(self.batch != ONE_FRAME, self.sizes, self.step)

    def shapes(self, own: tuple[int, int]) -> tuple[tuple[int, int, int, int], ...]:
        """The least, best and largest shape of ``frame``, for a net of the size ``own``."""
        return tuple((n, *size, 3) for n, size in zip(self.batch, self.sizes or (own,) * 3, strict=True))

    def tensor(self, own: tuple[int, int]) -> tuple[int, int, int, int]:
        """The shape that a plan says ``frame`` has, -1 where it is dynamic."""
        batch, height, width = (-1 if isinstance(side, str) else side for side in self.dynamic.dims(own))
        return batch, height, width, 3

    def told(self, shape: tuple[int, ...], own: tuple[int, int]) -> tuple[int, ...]:
        """What a plan says of a tensor, -1 also where its range is of one number, which the plan may have as such."""
        least, _, largest = self.shapes(own)
        rows = zip(shape, self.tensor(own), least, largest, strict=False)
        return tuple(-1 if dynamic == -1 and side == low == high else side for side, dynamic, low, high in rows)

    def takes(self, size: tuple[int, int]) -> bool:
        """Whether frames of ``size`` (H, W) run as they are, beside those of the net's own size."""
        if not self.sizes or len(size) != 2:
            return False
        least, _, largest = self.sizes
        return all(
            low <= side <= high and side % self.step == 0 for low, side, high in zip(least, size, largest, strict=True)
        )

    def settings(self) -> dict[str, str]:
        """For the passport; empty strings where nothing is dynamic."""
        return {
            BATCH: ":".join(map(str, self.batch)) if self.batch != ONE_FRAME else "",
            SIZES: ":".join(f"{h}x{w}" for h, w in self.sizes),
            STEP: str(self.step) if self.sizes else "",
        }

    @classmethod
    def read(cls, settings: Mapping[str, str]) -> "Profile":
        """What ``settings`` wrote; a passport of before has none of it. Raises ``EngineError`` for a damaged one."""
        batch, sizes, step = (settings.get(key, "") for key in (BATCH, SIZES, STEP))
        try:
            least, best, largest = map(int, batch.split(":")) if batch else ONE_FRAME
            pairs = tuple((int(h), int(w)) for h, w in (text.split("x") for text in sizes.split(":") if sizes))
            ranges = PlanOptions(batch=(least, best, largest), sizes=pairs)
            check_profile(ranges)
            return cls(ranges.batch, ranges.sizes, int(step or 1))
        except (ValueError, InputError) as error:
            raise EngineError(
                "the passport's ranges cannot be read", got=f"batch {batch!r}, sizes {sizes!r}, step {step!r}",
                hint="Build the engine again.",
            ) from error  # fmt: skip


def profile_for(network: Network, options: PlanOptions) -> Profile:
    """What ``options`` ask for, settled for ``network``. Raises what ``dynamic_shapes.resolve_dynamic_shapes`` does."""
    dynamic = resolve_dynamic_shapes(network, options.batch != ONE_FRAME, options.sizes)
    return Profile(options.batch, options.sizes, dynamic.step)


def check_profile(options: PlanOptions) -> None:
    """Raise ``InputError`` for a batch or sizes that are not in their order."""
    batch, sizes = options.batch, options.sizes
    if len(batch) != 3 or not 1 <= batch[0] <= batch[1] <= batch[2]:
        raise InputError("not a range of batches", got=batch, expected="least, best and largest, each at least 1")
    if sizes and (len(sizes) != 3 or not all(_rises([size[axis] for size in sizes]) for axis in (0, 1))):
        raise InputError("not a range of sizes", got=sizes, expected="the least, the best and the largest (H, W)")


def _rises(sides: Sequence[int]) -> bool:
    return 1 <= sides[0] <= sides[1] <= sides[2]
