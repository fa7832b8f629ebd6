"""What the check of a calibration set finds, and the verdict on each item: good, or what to do."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from edgeseg.data import Dataset

State = Literal["good", "warning", "not checked"]

_FEW_FRAMES = 32
_REPEATED_SHARE = 0.2
_SELDOM_FRAMES = 3
# Change of amax from half the frames to all. Of CamVid train, 100 frames: 1 % and 8 %; maxima 2 % and 29 %.
_SETTLED_MEDIAN, _SETTLED_WORST = 0.03, 0.25
_SETTLED_SCORE = 0.002  # mIoU, from half the frames to all


@dataclass(frozen=True)
class Verdict:
    """One item of the check: what was found, and what to do where it is not good."""

    item: str
    state: State
    found: str
    advice: str = ""


@dataclass(frozen=True)
class ClassCoverage:
    """How much of a class the set shows: pixels, share of all labelled pixels (0..1), frames."""

    name: str
    pixels: int
    share: float
    frames: int


@dataclass(frozen=True)
class Pair:
    """Two frames that look alike: ``difference`` is the mean over their thumbnails, in grey levels (0: identical)."""

    one: str
    two: str
    difference: float


@dataclass(frozen=True)
class Settling:
    """How far ``amax`` is from its final value after ``counts[i]`` frames, as shares of that value.

    ``median[method][i]`` and ``worst[method][i]`` are over the tensors; ``worst_tensor`` is by ``percentile``, at half.
    ``scores[i]`` is what ``score`` gave, or empty.
    """

    counts: tuple[int, ...]
    median: dict[str, tuple[float, ...]]
    worst: dict[str, tuple[float, ...]]
    worst_tensor: str
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class SetReport:
    """A calibration set, checked. ``coverage_from``: ``labels``, ``predictions``, or empty where neither was there.

    ``repeated`` frames look like an earlier one. ``identical`` and ``alike`` pair frames of the set with frames of the
    validation data. Lists of pairs stop at 200.
    """

    network: str
    set_description: str
    set_digest: str
    frames: int
    coverage: tuple[ClassCoverage, ...]
    coverage_from: str
    repeated: int
    repeats: tuple[Pair, ...]
    identical: tuple[Pair, ...]
    alike: tuple[Pair, ...]
    settling: Settling
    verdicts: tuple[Verdict, ...]

    @property
    def good(self) -> bool:
        """Whether nothing is to be warned of."""
        return all(verdict.state != "warning" for verdict in self.verdicts)

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {**asdict(self), "good": self.good}


def judge_frames(count: int, stretched: Sequence[str]) -> Verdict:
    """How many frames there are, and ``stretched``: the set's ``aspect_warnings``."""
    few = count < _FEW_FRAMES
    found = "; ".join([f"{count} frames", *stretched])
    advice = [f"Use {_FEW_FRAMES} or more, of different scenes."] if few else []
    advice += ["Use frames of the shape the camera will give."] if stretched else []
    return Verdict("frames", "warning" if advice else "good", found, " ".join(advice))


def judge_coverage(coverage: tuple[ClassCoverage, ...], source: str) -> Verdict:
    """Which classes are missing or seldom."""
    if not coverage:
        return Verdict("classes", "not checked", "the frames have no labels, and no engine was given")
    never = [one.name for one in coverage if not one.frames]
    seldom = [f"{one.name} ({one.frames})" for one in coverage if 0 < one.frames < _SELDOM_FRAMES]
    if not never and not seldom:
        return Verdict(
            "classes", "good", f"all {len(coverage)} classes in {_SELDOM_FRAMES} frames or more, by {source}"
        )
    found = [f"never seen: {', '.join(never)}"] if never else []
    found += [f"seen in fewer than {_SELDOM_FRAMES} frames: {', '.join(seldom)}"] if seldom else []
    return Verdict(
        "classes",
        "warning",
        f"{'; '.join(found)} (by {source})",
        "Add frames that show them; of labelled data `choose=cover` picks such.",
    )


def many_repeats(repeated: int, total: int) -> bool:
    """Whether so many frames repeat others that the set is smaller than it looks."""
    return repeated > _REPEATED_SHARE * total


def judge_repeats(repeated: int, total: int) -> Verdict:
    """How many frames add nothing."""
    found = f"{repeated} of {total} frames look like an earlier one ({100 * repeated / total:.0f} %)"
    if not many_repeats(repeated, total):
        return Verdict("near-duplicates", "good", found)
    return Verdict(
        "near-duplicates", "warning", found, "Spread the frames over more of the drive, or over several drives."
    )


def judge_overlap(identical: tuple[Pair, ...], alike: tuple[Pair, ...], validation: Dataset | None) -> Verdict:
    """Whether the set holds what is scored."""
    if validation is None:
        return Verdict("overlap", "not checked", "no validation data given", "Give it: `data=camvid:PATH`.")
    same, near = len({pair.one for pair in identical}), len({pair.one for pair in alike})
    if not same and not near:
        return Verdict("overlap", "good", f"no frame is in {validation.name} or looks like one of its frames")
    found = " and ".join(
        [f"{same} frames are in {validation.name}"] * bool(same)
        + [f"{near} frames look like one of {'it' if same else validation.name}"] * bool(near)
    )
    return Verdict("overlap", "warning", found, "Scores there will flatter: calibrate on other drives than are scored.")


def half_way(counts: Sequence[int]) -> int:
    """The place in ``counts`` of the last that is at most half of all frames; 0 where none is."""
    return max([place for place, count in enumerate(counts) if 2 * count <= counts[-1]], default=0)


def judge_settling(settling: Settling, repeats: bool) -> Verdict:
    """Whether more frames would change the ranges. Maxima alone never settle, and are not judged."""
    if len(settling.counts) < 2:
        return Verdict("settling", "warning", "one frame: nothing to compare", "Use more frames.")
    place, total = half_way(settling.counts), settling.counts[-1]
    median = max(settling.median[method][place] for method in ("percentile", "mse"))
    worst = max(settling.worst[method][place] for method in ("percentile", "mse"))
    found = (
        f"from {settling.counts[place]} to {total} frames ranges change by {100 * median:.1f} % (median) and up to "
        f"{100 * worst:.0f} % (percentile, mse); maxima by {100 * settling.median['minmax'][place]:.1f} %"
    )
    if median > _SETTLED_MEDIAN or worst > _SETTLED_WORST:
        return Verdict("settling", "warning", found, f"Use more frames: `count={2 * total}`, or more varied ones.")
    if repeats:
        return Verdict("settling", "not checked", found, "Frames that look alike settle at once: it says nothing here.")
    return Verdict("settling", "good", found)


def judge_scores(settling: Settling) -> Verdict:
    """Whether more frames would change the score."""
    place = half_way(settling.counts)
    best, last, before = max(settling.scores), settling.scores[-1], settling.scores[place]
    found = (
        f"INT8 score {100 * last:.2f} with all {settling.counts[-1]} frames, {100 * before:.2f} with "
        f"{settling.counts[place]}, {100 * best:.2f} at best"
    )
    if abs(last - before) <= _SETTLED_SCORE:
        return Verdict("score", "good", found)
    return Verdict("score", "warning", found, "The score still moves with the frames: use more of them.")
