"""Ranges of activations: every method against a slow, independent one.

Streaming, memory, files, cache.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper
from reporting import Heard

from edgeseg.errors import GraphError, InputError, OutputError
from edgeseg.quantize import histograms
from edgeseg.quantize.calibration_set import resolve_set
from edgeseg.quantize.histograms import BINS, Statistics, Tally, collect, collect_parts
from edgeseg.quantize.ranges import (
    DEAD_AMAX,
    METHODS,
    RangeOptions,
    cached_ranges,
    cached_statistics,
    entropy_amax,
    fitting_ranges,
    mse_amax,
    percentile_amax,
    ranges,
    read_ranges,
    squared_error,
    write_ranges,
)

DRIVE = "synthetic://?length=10&size=32x24&seed=3"
NAMES = ["gauss", "relu", "tail", "uniform", "bytes", "tiny"]


def sample(kind: str, seed: int = 0, size: int = 60_000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(size)
    made = {
        "gauss": x * 3,
        "relu": np.maximum(x - 0.5, 0),  # two values of three are exactly zero
        "tail": rng.standard_t(2.5, size),
        "uniform": rng.uniform(-1, 1, size),
        "bytes": rng.integers(0, 256, size) / 255 - 0.4,
        "tiny": x * 1e-7,
    }[kind]
    return made.astype(np.float32)


def statistics_of(values: np.ndarray) -> Statistics:
    tally = Tally()
    tally.add(values)
    return histograms._statistics(["x"], [tally], 1)


def amax_of(values: np.ndarray, method: str, **options: float) -> float:
    return ranges(statistics_of(values), method, **options).amax["x"]  # type: ignore[arg-type]


def net(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray] | None = None, kind: int = 1
) -> onnx.ModelProto:
    """A net from ``image`` (1, 3, H, W) to ``out``."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", kind, [1, 3, "h", "w"])],
        [helper.make_empty_tensor_value_info("out")],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def small_net() -> onnx.ModelProto:
    """Convolution, ReLU, pool with positions, unpool: a SegNet in small."""
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    return net(
        [
            helper.make_node(
                "Conv", ["image", "w"], ["conv"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]
            ),
            helper.make_node("Relu", ["conv"], ["relu"]),
            helper.make_node(
                "MaxPool", ["relu"], ["pool", "places"], kernel_shape=[2, 2], strides=[2, 2]
            ),
            helper.make_node(
                "MaxUnpool", ["pool", "places"], ["out"], kernel_shape=[2, 2], strides=[2, 2]
            ),
        ],
        {"w": weights},
    )


SMALL = ["image", "conv", "relu", "pool", "out"]


def frames(count: int, seed: int = 0) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    for i in range(count):
        yield (rng.standard_normal((1, 3, 24, 32)) * (i + 1)).astype(np.float32)


# --- the histogram

finite = st.floats(-(2.0**100), 2.0**100, width=32)


@given(
    st.lists(arrays(np.float32, st.integers(1, 40), elements=finite), min_size=1, max_size=6),
    st.randoms(),
)
def test_streaming_equals_one_pass_over_all_values(parts: list[np.ndarray], random: object) -> None:
    """Bit for bit, in any order, and by merging, against a histogram of everything made at once in
    float64.
    """
    together = np.concatenate(parts)
    shuffled = list(parts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    tally, merged = Tally(), None
    for part in shuffled:
        tally.add(part)
        merged = statistics_of(part) if merged is None else merged.merged(statistics_of(part))
    assert merged is not None
    sizes = np.abs(together.astype(np.float64))
    if sizes.max() > 0:
        top = max(2.0 ** (np.floor(np.log2(sizes.max())) + 1), 2.0**-100)
        top = top if top > sizes.max() else top * 2  # log2 rounds
        want = np.bincount((sizes[sizes > 0] * (BINS / top)).astype(np.int64), minlength=BINS)
        for found_top, histogram in (
            (tally.top, tally.histogram),
            (merged.top[0], merged.histogram[0]),
        ):
            assert found_top == top
            np.testing.assert_array_equal(histogram, want)
    assert (
        (tally.minimum, tally.maximum)
        == (together.min(), together.max())
        == (merged.minimum[0], merged.maximum[0])
    )
    assert tally.zeros == merged.zeros[0] == (together == 0).sum()
    assert tally.elements == merged.elements[0] == together.size


def test_long_arrays_are_counted_in_pieces() -> None:
    values = sample("gauss", size=3 * histograms._CHUNK + 17)
    found = statistics_of(values.reshape(1, -1, 1))
    assert found.histogram.sum() + found.zeros[0] == values.size == found.elements[0]
    assert found.largest[0] == np.abs(values).max()


# --- the methods, against raw data


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("seed", [0, 1])
def test_minmax_is_exact(kind: str, seed: int) -> None:
    values = sample(kind, seed)
    assert amax_of(values, "minmax") == np.abs(values).max()


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("share", [50.0, 99.0, 99.99, 100.0])
def test_percentile_is_within_a_bin(kind: str, share: float) -> None:
    values = sample(kind)
    found = statistics_of(values)
    want = np.percentile(np.abs(values), share, method="inverted_cdf") or np.abs(values).max()
    assert (
        abs(ranges(found, "percentile", percentile=share).amax["x"] - want) <= found.top[0] / BINS
    )


def brute_entropy(histogram: np.ndarray, levels: int) -> np.ndarray:
    """Migacz's pseudocode as it stands on his slides, bin by bin.

    Infinite where the last bin is empty.
    """
    divergences = np.full(len(histogram) + 1, np.inf)
    for i in range(levels, len(histogram) + 1):
        if histogram[i - 1] == 0:
            continue
        reference = histogram[:i].astype(np.float64)
        reference[-1] += histogram[i:].sum()
        level_of = np.digitize(np.arange(i), np.linspace(0, i, levels + 1)) - 1
        candidate = np.zeros(i)
        for level in range(levels):
            bins = [j for j in np.flatnonzero(level_of == level) if histogram[j]]
            candidate[bins] = histogram[bins].sum() / len(bins) if bins else 0
        p, q = reference / reference.sum(), candidate / candidate.sum()
        some = p > 0
        divergences[i] = (p[some] * np.log(p[some] / q[some])).sum()
    return divergences


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize(("bins", "levels"), [(200, 16), (301, 32), (128, 128), (100, 128)])
def test_entropy_is_the_published_procedure(kind: str, bins: int, levels: int) -> None:
    sizes = np.abs(sample(kind, size=5000))
    histogram, edges = np.histogram(sizes[sizes > 0], bins, range=(0, sizes.max()))
    found = entropy_amax(histogram, edges[1], levels)
    if bins < levels:
        assert found == pytest.approx(sizes.max())
        return
    divergences = brute_entropy(histogram, levels)
    assert divergences[round(found / edges[1])] == pytest.approx(divergences.min(), abs=1e-9)


@given(
    arrays(np.int64, st.integers(16, 60), elements=st.integers(0, 30)).filter(lambda h: h[-1] > 0)
)
@settings(max_examples=60, deadline=None)
def test_entropy_on_any_histogram(histogram: np.ndarray) -> None:
    divergences = brute_entropy(histogram, 16)
    found = entropy_amax(histogram, 1.0, 16)
    assert divergences[round(found)] == pytest.approx(divergences.min(), abs=1e-9)


def test_zeros_do_not_sway_entropy() -> None:
    values = np.abs(sample("gauss"))
    many = np.concatenate([values, np.zeros(10 * len(values), np.float32)])
    assert amax_of(values, "entropy") == amax_of(many, "entropy")


def quantization_error(values: np.ndarray, amax: float) -> float:
    scale = amax / 127
    return float(np.square(values - np.clip(np.rint(values / scale), -127, 127) * scale).mean())


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("seed", [0, 1])
def test_mse_is_the_best_of_many_thresholds(kind: str, seed: int) -> None:
    """Quantizing the values themselves, no threshold of 400 is more than 1 % better."""
    values = sample(kind, seed).astype(np.float64)
    largest = np.abs(values).max()
    best = min(
        quantization_error(values, amax) for amax in np.linspace(largest / 200, largest, 400)
    )
    found = quantization_error(values, amax_of(values.astype(np.float32), "mse"))
    # a byte image has 256 values and its bins are not uniform: which of the steps nearest to 1/255
    # is taken is chance
    assert found <= best * (1.25 if kind == "bytes" else 1.01)


def test_squared_error_is_the_integral() -> None:
    """A uniform density, by the midpoint rule with a million points."""
    histogram = np.array([1, 0, 2, 5], np.int64)
    x = (np.arange(250_000) + 0.5) / 250_000
    for amax in (0.3, 1.7, 3.9):
        scale = amax / 7
        want = 0.0
        for place, count in enumerate(histogram):
            u = place + x
            want += count * np.square(u - np.minimum(np.rint(u / scale), 7) * scale).mean()
        assert squared_error(histogram, 1.0, np.array([amax]), 7)[0] == pytest.approx(
            want, rel=1e-6
        )


@given(arrays(np.float32, st.integers(1, 200), elements=st.floats(-(2.0**60), 2.0**60, width=32)))
def test_every_method_stays_within_the_maximum(values: np.ndarray) -> None:
    found = statistics_of(values)
    for method in METHODS:
        amax = ranges(found, method).amax["x"]
        assert 0 < amax <= (found.largest[0] or DEAD_AMAX)


def test_more_bits_clip_less() -> None:
    values = sample("tail")
    assert (
        amax_of(values, "mse", bits=4)
        < amax_of(values, "mse", bits=8)
        < amax_of(values, "mse", bits=12)
    )


def test_a_dead_tensor_gets_a_range_and_a_note() -> None:
    found = statistics_of(np.zeros(100, np.float32))
    for method in METHODS:
        made = ranges(found, method)
        assert made.amax["x"] == DEAD_AMAX
        assert "zero on every calibration frame" in made.notes["x"]


def test_a_tensor_that_is_nearly_all_zero_keeps_its_maximum() -> None:
    values = np.zeros(100_000, np.float32)
    values[7] = 3.0
    made = ranges(statistics_of(values), "percentile", percentile=99.9)
    assert made.amax["x"] == 3.0
    assert "its maximum was taken" in made.notes["x"]


@pytest.mark.parametrize(
    ("method", "share"), [("best", 99.0), ("percentile", 0.0), ("percentile", 100.1)]
)
def test_wrong_methods_are_refused(method: str, share: float) -> None:
    with pytest.raises(InputError):
        ranges(statistics_of(sample("gauss", size=10)), method, percentile=share)


def test_percentile_of_a_single_value() -> None:
    assert percentile_amax(np.array([0, 0, 1]), 1.0, 0, 99.99) == pytest.approx(2.9999)
    assert mse_amax(np.array([0, 0, 1]), 1.0, 2.5) <= 2.5


# --- collecting


def test_collect_against_running_the_net_at_once() -> None:
    model = small_net()
    found = collect(model, SMALL, frames(5))
    assert found.frames == 5
    import onnxruntime

    probe = small_net()
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in SMALL[1:])
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    images = list(frames(5))
    seen = [[image, *session.run(None, {"image": image})] for image in images]
    for row, tensor in enumerate(SMALL):
        want = statistics_of(np.concatenate([values[row].ravel() for values in seen]))
        assert (found.minimum[row], found.maximum[row]) == (want.minimum[0], want.maximum[0]), (
            tensor
        )
        assert (found.zeros[row], found.elements[row], found.top[row]) == (
            want.zeros[0],
            want.elements[0],
            want.top[0],
        )
        np.testing.assert_array_equal(found.histogram[row], want.histogram[0])
    assert [o.name for o in model.graph.output] == ["out"]  # the caller's net is as it was


def test_groups_give_the_same_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = collect(small_net(), SMALL, frames(3))
    monkeypatch.setattr(histograms, "_GROUP_BYTES", 5000)  # one tensor each
    heard = Heard()
    parted = collect(small_net(), SMALL, frames(3), reporter=heard)
    np.testing.assert_array_equal(whole.histogram, parted.histogram)
    assert heard.steps == [("calibrate", done, None) for done in range(4)]


def test_groups_hold_no_more_than_their_budget() -> None:
    sizes = histograms._bytes_of(small_net(), "image", (1, 3, 24, 32))
    assert sizes["conv"] == sizes["relu"] == 4 * 4 * 24 * 32
    budget = histograms._GROUP_BYTES
    assert histograms._groups(["a", "b", "c"], {"a": budget, "b": 1, "c": budget - 1}) == [
        ["a"],
        ["b", "c"],
    ]
    assert histograms._groups(["a", "b"], {}) == [["a", "b"]]


def test_parts_sum_to_the_whole() -> None:
    whole = collect(small_net(), SMALL, frames(6))
    parts = collect_parts(small_net(), SMALL, frames(6), lambda i: i % 3)
    assert [part.frames for part in parts] == [2, 2, 2]
    together = parts[0].merged(parts[1]).merged(parts[2])
    np.testing.assert_array_equal(together.histogram, whole.histogram)
    np.testing.assert_array_equal(together.largest, whole.largest)
    assert together.frames == 6


def test_half_precision_activations_are_widened() -> None:
    model = net(
        [
            helper.make_node("Cast", ["image"], ["half"], to=TensorProto.FLOAT16),
            helper.make_node("Cast", ["half"], ["out"], to=TensorProto.FLOAT),
        ]
    )
    found = collect(model, ["half"], frames(1))
    assert found.largest[0] == np.abs(next(frames(1)).astype(np.float16)).max()


def test_what_is_watched() -> None:
    """Float activations in front of what INT8 computes or moves.

    No weights, no shapes, no positions.
    """
    nodes = [
        helper.make_node("Shape", ["image"], ["shape"]),
        helper.make_node("Add", ["shape", "one"], ["longer"]),
        helper.make_node("Identity", ["w"], ["w2"]),
        helper.make_node("Conv", ["image", "w2"], ["conv"], kernel_shape=[1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("Add", ["relu", "conv"], ["sum"]),
        helper.make_node("Add", ["sum", "bias"], ["biased"]),
        helper.make_node(
            "MaxPool", ["biased"], ["pool", "places"], kernel_shape=[2, 2], strides=[2, 2]
        ),
        helper.make_node(
            "MaxUnpool", ["pool", "places"], ["unpool"], kernel_shape=[2, 2], strides=[2, 2]
        ),
        helper.make_node("Concat", ["unpool", "relu"], ["out"], axis=1),
    ]
    constants: dict[str, np.ndarray] = {
        "one": np.array(1, np.int64),
        "w": np.ones((4, 3, 1, 1), np.float32),
        "bias": np.ones((1, 4, 1, 1), np.float32),
    }
    want = ("image", "relu", "conv", "sum", "biased", "pool", "unpool")
    assert histograms.tensors_to_watch(net(nodes, constants)) == want


@pytest.mark.parametrize(
    ("value", "said"),
    [(np.nan, "'conv' holds NaN on calibration frame 2"), (np.inf, "'conv' holds infinity")],
)
def test_numbers_that_are_none_name_the_tensor(value: float, said: str) -> None:
    images = list(frames(2))
    images[1][0, 0, 3, 3] = value
    with pytest.raises(GraphError, match=said):
        collect(small_net(), ["conv"], images)


def test_wrong_tensors_are_named() -> None:
    with pytest.raises(GraphError, match="no such activation: got 'nowhere'"):
        collect(small_net(), ["conv", "nowhere"], frames(1))
    with pytest.raises(GraphError, match="'places' cannot be calibrated"):
        collect(small_net(), ["places"], frames(1))
    with pytest.raises(InputError, match="no frames"):
        collect(small_net(), ["conv"], [])
    with pytest.raises(GraphError, match="ONNX Runtime cannot run"):
        collect(small_net(), ["conv"], [np.zeros((1, 4, 8, 8), np.float32)])


MEMORY = """
import resource, sys
import numpy as np
from edgeseg.graph.network import Overrides, load_network
from edgeseg.graph.outputs import fix_input
from edgeseg.quantize.ranges import collect
from edgeseg.zoo import zoo
size = (64, 96)
net = load_network(zoo()["enet-camvid"], Overrides(size=size))
fix_input(net.model, net.input, net.channels_last, size)
rng = np.random.default_rng(0)
watched = "Conv", "Add", "PRelu", "MaxPool", "MaxUnpool"
tensors = [n.output[0] for n in net.model.graph.node if n.op_type in watched]
count = int(sys.argv[1])
noise = (rng.standard_normal((1, 3, *size)) * (1 + i % 7) for i in range(count))
assert collect(net.model, tensors, (x.astype(np.float32) for x in noise)).frames == count
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_frames() -> None:
    """Peak memory on 4 and on 400 frames is the same within 10 %. Values kept would be a hundred
    times that.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    peak_kib = [
        int(
            subprocess.run(
                [sys.executable, "-c", MEMORY, str(count)],
                capture_output=True,
                text=True,
                check=True,
                env=environment,
            ).stdout
        )
        for count in (4, 400)
    ]
    assert peak_kib[1] <= 1.1 * peak_kib[0], peak_kib


# --- files


def test_files_hold_what_was_written(tmp_path: Path) -> None:
    made = ranges(collect(small_net(), SMALL, frames(2)), "percentile", percentile=99.0)
    path = write_ranges(tmp_path / "net.ranges.json", made)
    assert read_ranges(path) == made
    assert json.loads(path.read_text())["percentile"] == 99.0


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"method": "mse"}', '{"method": "mse", "bits": 8, "frames": 1, "amax": {"x": 0}}'],
)
def test_damaged_files_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"r\.json: not a file of ranges"):
        read_ranges(path)
    with pytest.raises(InputError, match="no such file of ranges"):
        read_ranges(tmp_path / "none.json")


def test_foreign_ranges_are_not_used_and_that_is_said(tmp_path: Path) -> None:
    made = ranges(collect(small_net(), SMALL, frames(2)), "minmax")
    facts = {"network_sha256": "a" * 64, "set_digest": "b" * 64, "set_description": "ten greys"}
    path = write_ranges(tmp_path / "r.json", made.model_copy(update=facts))
    assert fitting_ranges(path, "a" * 64)[0] is not None
    assert fitting_ranges(path, "a" * 64, "b" * 64, SMALL) == (read_ranges(path), "")
    for arguments, said in (
        (("c" * 64,), "another net"),
        (("a" * 64, "c" * 64), r"another calibration set \(ten greys\)"),
        (("a" * 64, None, ["conv", "elsewhere"]), "lacks 1 of 2 activations, such as 'elsewhere'"),
    ):
        found, reason = fitting_ranges(path, *arguments)
        assert found is None
        assert "it is not used" in reason
        assert re.search(said, reason)


# --- the cache


def plain(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32)


def test_the_cache_is_hit_by_every_method_and_missed_by_any_change(tmp_path: Path) -> None:
    model, found = small_net(), resolve_set(DRIVE, count=3)
    first, from_cache = cached_ranges(
        model, "net", SMALL, found, RangeOptions("minmax"), plain, tmp_path
    )
    assert not from_cache
    assert (first.network_sha256, first.set_digest, first.frames) == ("net", found.digest, 3)
    assert first.set_description == found.describe()
    for method in METHODS:
        again, from_cache = cached_ranges(
            model, "net", SMALL, found, RangeOptions(method), plain, tmp_path
        )
        assert from_cache
        assert again.amax == ranges(collect(model, SMALL, map(plain, found.images())), method).amax
    others = [
        ("net2", SMALL, found, plain),
        ("net", SMALL[:-1], found, plain),
        ("net", SMALL, resolve_set(DRIVE, count=2), plain),
        (
            "net",
            SMALL,
            found,
            lambda image: plain(image) * 2,
        ),  # another mean, std, size or colour order
    ]
    for number, (sha256, tensors, chosen, to_input) in enumerate(others):
        assert not cached_ranges(
            model, sha256, tensors, chosen, RangeOptions("mse"), to_input, tmp_path
        )[1]
        assert len(list(tmp_path.glob("*.npz"))) == number + 2


def test_a_damaged_or_foreign_cache_is_made_again(tmp_path: Path) -> None:
    model, found = small_net(), resolve_set(DRIVE, count=2)
    want, _ = cached_statistics(model, "net", SMALL, found, plain, tmp_path)
    (path,) = tmp_path.glob("*.npz")
    whole = path.read_bytes()
    cached_statistics(model, "other", SMALL, found, plain, tmp_path)
    (other,) = set(tmp_path.glob("*.npz")) - {path}
    for content in (b"", b"no archive", whole[:-200], other.read_bytes()):
        path.write_bytes(content)
        again, from_cache = cached_statistics(model, "net", SMALL, found, plain, tmp_path)
        assert not from_cache
        np.testing.assert_array_equal(again.histogram, want.histogram)
        assert cached_statistics(model, "net", SMALL, found, plain, tmp_path)[1]


def test_the_cache_is_in_edgesegs_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path / "c"))
    cached_ranges(
        small_net(), "net", SMALL, resolve_set(DRIVE, count=1), RangeOptions("mse"), plain
    )
    assert len(list((tmp_path / "c" / "ranges").glob("*.npz"))) == 1


def test_a_cache_that_cannot_be_written_is_told_before_collecting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="EDGESEG_CACHE"):
        cached_ranges(
            small_net(),
            "net",
            ["nowhere"],
            resolve_set(DRIVE, count=1),
            RangeOptions("mse"),
            plain,
            tmp_path / "file" / "x",
        )


def test_no_torch_is_imported() -> None:
    modules = "edgeseg.quantize.ranges, edgeseg.quantize.calibration_set"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
