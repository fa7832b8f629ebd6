"""Compare two engines, and fail if the second one lost a class.

    python examples/compare_engines.py net.fp32.cpu.engine net.int8.cpu.engine camvid:CamVid

The exit code is 1 if a class lost more than the budget of IoU, so it can end a CI job.
"""

import argparse
import sys

import edgeseg


def main() -> int:
    """Compare, print each class, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reference")
    parser.add_argument("candidate")
    parser.add_argument("data")
    parser.add_argument("--split", default="val")
    parser.add_argument("--frames", type=int, help="number of frames, evenly spread")
    parser.add_argument("--max-drop", type=float, default=2.0, help="points of IoU per class")
    options = parser.parse_args()

    result = edgeseg.compare(
        [options.reference, options.candidate],
        options.data,
        split=options.split,
        frames=options.frames,
    )
    before, after = result.results
    if before.scores is None or after.scores is None:
        raise SystemExit(f"{options.data}: has no labels")

    lost = []
    for name, old, new in zip(
        result.data.labels.names, before.scores.iou, after.scores.iou, strict=True
    ):
        change = 100 * (new - old)
        print(f"{name:12} {100 * old:6.2f} {100 * new:6.2f} {change:+6.2f}")
        if change < -options.max_drop:
            lost.append(name)

    speed = before.latency.ms_p50 / after.latency.ms_p50
    print(f"{speed:.2f} times as fast, {100 * after.agreement:.2f} % equal labels")
    if lost:
        print(f"lost more than {options.max_drop} points: {', '.join(lost)}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
