"""Hold what the check of a calibration set finds, and judge each item: good, or what to do."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from edgeseg.data import Dataset

State = Literal["good", "warning", "not checked"]

_FEW_FRAMES = 32  # fewer frames give a warning
_REPEATED_SHARE = 0.2  # a larger share of repeated frames gives a warning
_SELDOM_FRAMES = 3  # a class in fewer frames gives a warning
# Largest change of amax from half of the frames to all, for the median tensor and for the worst
# one. With 100 frames of CamVid train: 1 % and 8 %; for maxima 2 % and 29 %.
_SETTLED_MEDIAN = 0.03
_SETTLED_WORST = 0.25
_SETTLED_SCORE = 0.002  # largest change of the score from half of the frames to all


@dataclass(frozen=True)
class Verdict:
    """Judge one item of the check.

    Attributes
    ----------
    item : what was checked, in a word.
    state : the verdict.
    found : what was found, in words.
    advice : what to do; empty if there is nothing to do.
    """

    item: str
    state: State
    found: str
    advice: str = ""


@dataclass(frozen=True)
class ClassCoverage:
    """Count how much of a class the set shows.

    Attributes
    ----------
    name : name of the class.
    pixels : number of pixels.
    share : share of all labelled pixels (0..1).
    frames : number of frames that show the class.
    """

    name: str
    pixels: int
    share: float
    frames: int


@dataclass(frozen=True)
class Pair:
    """Name two frames that look alike.

    Attributes
    ----------
    one, two : names of the frames.
    difference : mean difference of their thumbnails in grey levels; 0 for identical frames.
    """

    one: str
    two: str
    difference: float


@dataclass(frozen=True)
class Settling:
    """Hold how ranges and score change with the number of frames.

    A change is the distance of ``amax`` from its value with all frames, as a share of that value.

    Attributes
    ----------
    counts : numbers of frames, in rising order; the last one is all frames.
    median : for each method, the median change over the tensors, per number of frames.
    worst : for each method, the largest change over the tensors, per number of frames.
    worst_tensor : the tensor of the largest change by ``percentile``, at half of the frames.
    scores : the score per number of frames; empty if there was no score.
    """

    counts: tuple[int, ...]
    median: dict[str, tuple[float, ...]]
    worst: dict[str, tuple[float, ...]]
    worst_tensor: str
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class SetReport:
    """Hold everything that the check of a calibration set found.

    Attributes
    ----------
    network : name of the network.
    set_description : the set in words.
    set_digest : digest of the set.
    frames : number of frames.
    coverage : how much the set shows of each class; empty without labels.
    coverage_from : ``labels`` or ``predictions``; empty without labels.
    repeated : number of frames that look like an earlier one.
    repeats : pairs of frames of the set that look alike, at most 200.
    identical : pairs of a frame of the set and the same frame of the validation data, at most 200.
    alike : pairs of a frame of the set and a similar one of the validation data, at most 200.
    settling : how ranges and score change with the number of frames.
    verdicts : the verdict on each item.
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
        """Return True if there is no warning."""
        return all(verdict.state != "warning" for verdict in self.verdicts)

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {**asdict(self), "good": self.good}


def judge_frames(count: int, stretched: Sequence[str]) -> Verdict:
    """Judge the number of frames and their aspect ratios.

    Parameters
    ----------
    count : number of frames.
    stretched : warnings of ``CalibrationSet.aspect_warnings``.

    Examples
    --------
    >>> judge_frames(100, [])
    Verdict(item='frames', state='good', found='100 frames', advice='')
    >>> judge_frames(4, []).advice
    'Use 32 or more, of different scenes.'
    """
    advice = []
    if count < _FEW_FRAMES:
        advice.append(f"Use {_FEW_FRAMES} or more, of different scenes.")
    if stretched:
        advice.append("Use frames of the camera's aspect ratio.")

    found = "; ".join([f"{count} frames", *stretched])
    return Verdict("frames", "warning" if advice else "good", found, " ".join(advice))


def judge_coverage(coverage: tuple[ClassCoverage, ...], source: str) -> Verdict:
    """Judge which classes the frames show.

    Parameters
    ----------
    coverage : how much the set shows of each class; empty without labels.
    source : where the labels are from, ``labels`` or ``predictions``.

    Examples
    --------
    >>> judge_coverage((ClassCoverage("pole", 90, 0.01, frames=1),), "labels").found
    'seen in fewer than 3 frames: pole (1) (by labels)'
    """
    if not coverage:
        found = "the frames have no labels, and no engine was given"
        return Verdict("classes", "not checked", found)

    never = [one.name for one in coverage if not one.frames]
    seldom = [f"{one.name} ({one.frames})" for one in coverage if 0 < one.frames < _SELDOM_FRAMES]
    if not never and not seldom:
        found = f"all {len(coverage)} classes in {_SELDOM_FRAMES} frames or more, by {source}"
        return Verdict("classes", "good", found)

    problems = []
    if never:
        problems.append(f"never seen: {', '.join(never)}")
    if seldom:
        problems.append(f"seen in fewer than {_SELDOM_FRAMES} frames: {', '.join(seldom)}")
    return Verdict(
        "classes",
        "warning",
        f"{'; '.join(problems)} (by {source})",
        "Add frames that show these classes; for labelled data, `choose=cover` chooses some.",
    )


def many_repeats(repeated: int, total: int) -> bool:
    """Return True if so many frames repeat others that the set is smaller than it looks.

    Parameters
    ----------
    repeated : number of frames that look like an earlier one.
    total : number of all frames.

    Examples
    --------
    >>> many_repeats(30, 100)
    True
    """
    return repeated > _REPEATED_SHARE * total


def judge_repeats(repeated: int, total: int) -> Verdict:
    """Judge the number of frames that look like an earlier one.

    Parameters
    ----------
    repeated : number of these frames.
    total : number of all frames.

    Examples
    --------
    >>> judge_repeats(2, 100).found
    '2 of 100 frames look like an earlier one (2 %)'
    """
    found = (
        f"{repeated} of {total} frames look like an earlier one ({100 * repeated / total:.0f} %)"
    )
    if not many_repeats(repeated, total):
        return Verdict("near-duplicates", "good", found)
    advice = "Spread the frames over more of the drive, or over several drives."
    return Verdict("near-duplicates", "warning", found, advice)


def judge_overlap(
    identical: tuple[Pair, ...], alike: tuple[Pair, ...], validation: Dataset | None
) -> Verdict:
    """Judge whether the set holds frames that are scored.

    Parameters
    ----------
    identical : pairs of a frame of the set and the same frame of the validation data.
    alike : pairs of a frame of the set and a similar one of the validation data.
    validation : the validation data; ``None``: it is not checked.

    Examples
    --------
    >>> judge_overlap((), (), None).state
    'not checked'
    """
    if validation is None:
        advice = "Give it: `data=camvid:PATH`."
        return Verdict("overlap", "not checked", "no validation data given", advice)

    same = len({pair.one for pair in identical})
    near = len({pair.one for pair in alike})
    if not same and not near:
        found = f"no frame is in {validation.name} or looks like one of its frames"
        return Verdict("overlap", "good", found)

    problems = []
    if same:
        problems.append(f"{same} frames are in {validation.name}")
    if near:
        problems.append(f"{near} frames look like one of {'it' if same else validation.name}")
    advice = "Scores on this data will be too high: calibrate on other drives than are scored."
    return Verdict("overlap", "warning", " and ".join(problems), advice)


def half_way(counts: Sequence[int]) -> int:
    """Return the index of the largest number of frames that is at most half of all; 0 if none is.

    Parameters
    ----------
    counts : numbers of frames, in rising order; the last one is all frames.

    Examples
    --------
    >>> half_way([1, 2, 4, 8, 11])
    2
    """
    halves = [place for place, count in enumerate(counts) if 2 * count <= counts[-1]]
    return max(halves, default=0)


def judge_settling(settling: Settling, repeats: bool) -> Verdict:
    """Judge whether more frames would change the ranges.

    Maxima alone never settle, so they are not judged.

    Parameters
    ----------
    settling : how the ranges change with the number of frames.
    repeats : True if many frames look like an earlier one: then settled ranges mean nothing.

    Examples
    --------
    >>> judge_settling(Settling((1,), {}, {}, ""), repeats=False).found
    'one frame: nothing to compare'
    """
    if len(settling.counts) < 2:
        return Verdict("settling", "warning", "one frame: nothing to compare", "Use more frames.")

    # The change from half of the frames to all.
    place = half_way(settling.counts)
    total = settling.counts[-1]
    median = max(settling.median[method][place] for method in ("percentile", "mse"))
    worst = max(settling.worst[method][place] for method in ("percentile", "mse"))
    found = (
        f"from {settling.counts[place]} to {total} frames, ranges change by {100 * median:.1f} % "
        f"(median) and up to {100 * worst:.0f} % (percentile, mse); "
        f"maxima by {100 * settling.median['minmax'][place]:.1f} %"
    )

    if median > _SETTLED_MEDIAN or worst > _SETTLED_WORST:
        advice = f"Use more frames: `count={2 * total}`, or more varied ones."
        return Verdict("settling", "warning", found, advice)
    if repeats:
        advice = "Ranges of frames that look alike always settle. Use more varied frames."
        return Verdict("settling", "not checked", found, advice)
    return Verdict("settling", "good", found)


def judge_scores(settling: Settling) -> Verdict:
    """Judge whether more frames would change the score.

    Parameters
    ----------
    settling : how the score changes with the number of frames; it must hold scores.

    Examples
    --------
    >>> judge_scores(Settling((1, 2), {}, {}, "", scores=(0.5, 0.6))).state
    'warning'
    """
    place = half_way(settling.counts)
    best = max(settling.scores)
    last = settling.scores[-1]
    before = settling.scores[place]
    found = (
        f"INT8 score {100 * last:.2f} with all {settling.counts[-1]} frames, {100 * before:.2f} "
        f"with {settling.counts[place]}, {100 * best:.2f} at best"
    )

    if abs(last - before) <= _SETTLED_SCORE:
        return Verdict("score", "good", found)
    advice = "The score still changes with the number of frames: use more of them."
    return Verdict("score", "warning", found, advice)
