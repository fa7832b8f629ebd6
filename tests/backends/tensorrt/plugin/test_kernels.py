"""The TensorRT plugin's kernels on the CPU: against PyTorch, ONNX Runtime, OpenCV, and edgeseg's
own pictures.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from plugin_host import COMBINATIONS, TYPES, Array, Call, build_host, pack, run_calls, unpack

from edgeseg.imaging.postprocess import overlay, palette_lut
from edgeseg.imaging.preprocess import coefficients, resize_frame, resize_labels, to_input
from edgeseg.spec import CAMVID_11, ModelSpec

# Odd sides, sides of 1, rows that are and are not multiples of 16 bytes, channels that do and do
# not fill their packs.
SHAPES = [
    (1, 1, 2, 2),
    (1, 3, 4, 4),
    (2, 5, 7, 9),
    (2, 8, 6, 30),
    (1, 16, 11, 33),
    (3, 33, 8, 16),
    (1, 1, 2, 3),
    (2, 4, 1, 5),
    (1, 2, 3, 1),
    (1, 7, 5, 2),
    (2, 32, 3, 64),
    (1, 9, 2, 127),
    (2, 3, 10, 34),
]
LARGE = (2, 20, 90, 122)


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_host(tmp_path_factory.mktemp("plugin-host"))


@pytest.fixture(scope="session")
def device_host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the branches that only nvcc compiles."""
    return build_host(tmp_path_factory.mktemp("plugin-device-host"), device_branches=True)


@pytest.fixture(params=["host", "device_host"])
def program(request: pytest.FixtureRequest) -> Path:
    """One and the other."""
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def inputs(
    kind: str, shape: tuple[int, ...], dtype: type[np.generic], rng: np.random.Generator
) -> Array:
    """Random numbers, ties (as after ReLU), and the ends of the type's range."""
    whole = dtype is np.int8
    if kind == "random":
        return (rng.integers(-128, 128, shape) if whole else 3 * rng.standard_normal(shape)).astype(
            dtype
        )
    if kind == "ties":
        return rng.integers(-1, 2, shape).clip(0).astype(dtype)
    if whole:
        return rng.choice(np.array([-128, -127, 127, 0], np.int8), shape)
    finfo = np.finfo(cast(type[np.floating[Any]], dtype))
    numbers = [
        np.inf,
        -np.inf,
        0.0,
        -0.0,
        finfo.smallest_subnormal,
        -finfo.smallest_subnormal,
        finfo.max,
        finfo.min,
    ]
    if kind == "nan":
        numbers += [np.nan] * 3
    return rng.choice(np.array(numbers, dtype), shape)


def torch_pool(x: Array) -> tuple[Array, Array]:
    """PyTorch's maxima and codes (N, C, H // 2, W // 2); float32 holds FP16 and INT8 exactly."""
    torch = pytest.importorskip("torch")
    n, c, h, w = x.shape
    if h < 2 or w < 2:
        return np.zeros((n, c, h // 2, w // 2), x.dtype), np.zeros((n, c, h // 2, w // 2), np.int8)
    value, index = torch.nn.functional.max_pool2d(
        torch.from_numpy(x.astype(np.float32)), 2, return_indices=True
    )
    code = (index // w % 2) * 2 + index % w % 2
    return value.numpy().astype(x.dtype), code.numpy().astype(np.int8)


def torch_unpool(value: Array, code: Array, extra: tuple[int, int]) -> Array:
    torch = pytest.importorskip("torch")
    n, c, h, w = value.shape
    size = (2 * h + extra[0], 2 * w + extra[1])
    if not value.size:
        return np.zeros((n, c, *size), value.dtype)
    rows, columns = np.arange(h)[:, None] * 2 + code // 2, np.arange(w) * 2 + code % 2
    index = torch.from_numpy((rows * size[1] + columns).astype(np.int64))
    out = torch.nn.functional.max_unpool2d(
        torch.from_numpy(value.astype(np.float32)), index, 2, output_size=size
    )
    return np.asarray(out.numpy().astype(value.dtype))


def same_bits(a: Array, b: Array) -> bool:
    """Equal to the last bit, so that -0 is not 0; any NaN equals any other."""
    if a.dtype == np.int8:
        return np.array_equal(a, b)
    nan = np.isnan(a) & np.isnan(b)
    bits = f"u{a.dtype.itemsize}"
    equal = np.ascontiguousarray(a).view(bits) == np.ascontiguousarray(b).view(bits)
    return a.shape == b.shape and bool((equal | nan).all())


def garbage(dtype: type[np.generic]) -> float:
    """What may stand in padding channels: nothing may come of it."""
    return 127 if dtype is np.int8 else np.nan


def variants(form: str, number: type[np.generic]) -> Iterator[dict[str, int]]:
    """Index widths, orders, and, where channels are not packed, addresses off the 16 bytes of
    vector accesses.
    """
    yield {"wide": 0}
    yield {"wide": 1, "reverse": 1}
    if form == "linear":
        yield {"skew": np.dtype(number).itemsize}
        yield {"skew": 16, "wide": 1}


@pytest.mark.parametrize("kind", ["random", "ties", "extreme", "nan"])
@pytest.mark.parametrize(("dtype", "form", "code_form"), COMBINATIONS)
def test_pooling_is_pytorchs(
    host: Path, tmp_path: Path, dtype: str, form: str, code_form: str, kind: str
) -> None:
    if kind == "nan" and dtype == "int8":
        pytest.skip("INT8 has no NaN")
    rng = np.random.default_rng(sum(map(ord, dtype + form + code_form + kind)))
    number = TYPES[dtype]
    cases = [(shape, v) for shape in SHAPES for v in variants(form, TYPES[dtype])] + [(LARGE, {})]
    xs = [inputs(kind, shape, number, rng) for shape, _ in cases]
    formats = {"type": dtype, "format": form, "code_format": code_form}
    calls = [
        Call(
            "pool",
            {**formats, "shape": ",".join(map(str, shape)), **v},
            {"x": pack(x, form, garbage(number))},
            {"value": number, "code": np.int8},
        )
        for (shape, v), x in zip(cases, xs, strict=True)
    ]
    for x, out in zip(xs, run_calls(host, tmp_path, calls), strict=True):
        value, code = torch_pool(x)
        got, padding = unpack(out["value"], form, value.shape)
        got_code, code_padding = unpack(out["code"], code_form, value.shape)
        assert same_bits(got, value)
        assert np.array_equal(got_code, code)
        assert not padding.any()
        assert not code_padding.any()


@pytest.mark.parametrize("with_addend", [False, True])
@pytest.mark.parametrize(("dtype", "form", "code_form"), COMBINATIONS)
def test_unpooling_is_pytorchs(
    host: Path, tmp_path: Path, dtype: str, form: str, code_form: str, with_addend: bool
) -> None:
    if with_addend and dtype == "int8":
        pytest.skip("INT8 takes no addend: the scales differ")
    rng = np.random.default_rng(sum(map(ord, dtype + form + code_form)))
    number = TYPES[dtype]
    windows = [(n, c, h // 2, w // 2) for n, c, h, w in [*SHAPES, (1, 4, 12, 32), (2, 3, 6, 64)]]
    extras = list(itertools.product((0, 1), (0, 1)))
    cases = [(s, e, v) for s in windows for e in extras for v in variants(form, TYPES[dtype])]
    cases += [((2, 20, 45, 61), (1, 1), {}), ((2, 20, 45, 64), (1, 0), {})]
    calls, expected = [], []
    for index, (shape, extra, variant) in enumerate(cases):
        value = inputs(("random", "extreme")[index % 2], shape, number, rng)
        code = rng.integers(0, 4, shape, np.int8)
        out = torch_unpool(value, code, extra)
        settings = {
            "type": dtype,
            "format": form,
            "code_format": code_form,
            "shape": ",".join(map(str, shape)),
        }
        reads = {"value": pack(value, form, garbage(number)), "code": pack(code, code_form, 3)}
        if with_addend:
            addend = inputs("random", out.shape, number, rng)
            reads["addend"] = pack(addend, form)
            out = out + addend
        calls.append(
            Call(
                "unpool",
                {**settings, "extra": f"{extra[0]},{extra[1]}", **variant},
                reads,
                {"out": number},
            )
        )
        expected.append(out)
    for out, got in zip(expected, run_calls(host, tmp_path, calls), strict=True):
        values, padding = unpack(got["out"], form, out.shape)
        assert same_bits(values, out)
        assert not padding.any()


def test_pool_and_unpool_are_onnx_runtimes(host: Path, tmp_path: Path) -> None:
    """Both operators of the ONNX standard, in one file, on sizes that leave a row and a column."""
    rng = np.random.default_rng(2)
    pool_attributes: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node("MaxPool", ["x"], ["value", "indices"], **pool_attributes),
        helper.make_node("Shape", ["x"], ["size"]),
        helper.make_node("MaxUnpool", ["value", "indices", "size"], ["out"], **pool_attributes),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * 4)
        for n in ("x", "value", "out")
    ]
    graph = helper.make_graph(nodes, "pair", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    shapes = [s for s in (*SHAPES, LARGE) if s[2] > 1 and s[3] > 1]
    for dtype, kind in itertools.product(TYPES, ("random", "ties", "extreme")):
        number, folder = TYPES[dtype], tmp_path / f"{dtype}-{kind}"
        xs = [inputs(kind, shape, number, rng) for shape in shapes]
        formats = {"type": dtype, "format": "linear", "code_format": "linear"}
        writes: dict[str, type[np.generic]] = {"value": number, "code": np.int8}
        calls = [
            Call("pool", {**formats, "shape": ",".join(map(str, x.shape))}, {"x": x}, writes)
            for x in xs
        ]
        pooled = run_calls(host, folder / "pool", calls)
        calls = []
        for x, p in zip(xs, pooled, strict=True):
            n, c, h, w = x.shape
            settings = {
                **formats,
                "shape": f"{n},{c},{h // 2},{w // 2}",
                "extra": f"{h % 2},{w % 2}",
            }
            calls.append(Call("unpool", settings, p, {"out": number}))
        for x, p, u in zip(xs, pooled, run_calls(host, folder / "unpool", calls), strict=True):
            value, out = session.run(None, {"x": x.astype(np.float32)})
            assert np.array_equal(p["value"].reshape(value.shape), value.astype(number))
            assert np.array_equal(u["out"].reshape(x.shape), out.astype(number))


def test_every_half_is_added_as_numpy_adds(host: Path, tmp_path: Path) -> None:
    """All 65536 bit patterns, each to a pattern of another order: conversions, rounding,
    infinities, NaN.
    """
    patterns = np.arange(65536, dtype=np.uint16)
    value = patterns.view(np.float16).reshape(1, 1, 256, 256)
    other = np.random.default_rng(0).permutation(patterns).view(np.float16).reshape(1, 1, 256, 256)
    addend = np.zeros((1, 1, 512, 512), np.float16)
    addend[:, :, ::2, ::2] = other
    settings = {
        "type": "fp16",
        "format": "linear",
        "code_format": "linear",
        "shape": "1,1,256,256",
        "extra": "0,0",
    }
    reads: dict[str, Array] = {
        "value": value,
        "code": np.zeros(value.shape, np.int8),
        "addend": addend,
    }
    (out,) = run_calls(host, tmp_path, [Call("unpool", settings, reads, {"out": np.float16})])
    with np.errstate(all="ignore"):
        assert same_bits(out["out"].reshape(512, 512)[::2, ::2], (value + other)[0, 0])


def test_a_code_that_is_none_of_the_four_places_nothing(host: Path, tmp_path: Path) -> None:
    code = np.array([-128, -1, 4, 127], np.int8).reshape(1, 1, 2, 2)
    reads: dict[str, Array] = {"value": np.ones((1, 1, 2, 2), np.float32), "code": code}
    settings = {"type": "fp32", "format": "linear", "code_format": "linear", "shape": "1,1,2,2"}
    calls = [
        Call("unpool", {**settings, "extra": extra}, reads, {"out": np.float32})
        for extra in ("0,0", "1,1")
    ]
    assert not any(out["out"].any() for out in run_calls(host, tmp_path, calls))


def test_device_branches_give_the_same_bits(host: Path, device_host: Path, tmp_path: Path) -> None:
    """What nvcc compiles in place of the host's branches: vector accesses, shifts of words,
    conversions of halves.
    """
    rng = np.random.default_rng(6)
    calls = []
    for dtype, form, code_form in COMBINATIONS:
        number = TYPES[dtype]
        common = {"type": dtype, "format": form, "code_format": code_form}
        pooled: dict[str, type[np.generic]] = {"value": number, "code": np.int8}
        for (n, c, h, w), kind in itertools.product(SHAPES, ("random", "extreme", "nan")):
            if kind == "nan" and dtype == "int8":
                continue
            x = pack(inputs(kind, (n, c, h, w), number, rng), form)
            skew = (
                {"skew": np.dtype(number).itemsize}
                if form == "linear" and kind == "extreme"
                else {}
            )
            calls.append(
                Call("pool", {**common, "shape": f"{n},{c},{h},{w}", **skew}, {"x": x}, pooled)
            )
            shape = (n, c, h // 2, w // 2)
            reads = {"value": pack(inputs(kind, shape, number, rng), form)}
            reads["code"] = pack(rng.integers(0, 4, shape, np.int8), code_form)
            if dtype != "int8" and kind == "random":
                reads["addend"] = pack(inputs(kind, (n, c, h, w), number, rng), form)
            settings = {
                **common,
                "shape": ",".join(map(str, shape)),
                "extra": f"{h % 2},{w % 2}",
                **skew,
            }
            calls.append(Call("unpool", settings, reads, {"out": number}))
    patterns = np.arange(65536, dtype=np.uint16)
    addend = rng.permutation(np.repeat(patterns, 4))
    halves: dict[str, Array] = {
        "value": patterns,
        "code": np.zeros(65536, np.int8),
        "addend": addend,
    }
    settings = {
        "type": "fp16",
        "format": "linear",
        "code_format": "linear",
        "shape": "1,1,256,256",
        "extra": "0,0",
    }
    calls.append(Call("unpool", settings, halves, {"out": np.float16}))
    expected = run_calls(host, tmp_path / "host", calls)
    got = run_calls(device_host, tmp_path / "device", calls)
    for one, other in zip(expected, got, strict=True):
        assert all(same_bits(one[key], other[key]) for key in one)


def preprocess_call(frame: Array, spec: ModelSpec, resize: int, half: bool = False) -> Call:
    gain, offset = coefficients(spec)
    settings = {
        "kind": 0,
        "frame": f"{frame.shape[0]},{frame.shape[1]}",
        "pitch": 3 * frame.shape[1],
        "size": f"{spec.input_size[0]},{spec.input_size[1]}",
        "half": int(half),
        "rgb": int(spec.colour == "rgb"),
        "resize": resize,
        "gain": ",".join(map(repr, gain.tolist())),
        "offset": ",".join(map(repr, offset.tolist())),
    }
    return Call(
        "preprocess", settings, {"plane": frame}, {"out": np.float16 if half else np.float32}
    )


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
@pytest.mark.parametrize(
    ("frame_size", "size"),
    [
        ((24, 32), (24, 32)),
        ((24, 32), (48, 64)),
        ((24, 32), (37, 51)),
        ((90, 160), (45, 80)),
        ((90, 161), (24, 32)),
        ((71, 33), (50, 64)),
        ((1, 1), (8, 8)),
        ((45, 60), (45, 20)),
    ],
)
def test_preprocessing_is_pythons(
    host: Path, tmp_path: Path, frame_size: tuple[int, int], size: tuple[int, int], colour: str
) -> None:
    """Within a grey level of ``to_input``; equal where nothing is resized, nearly so where the
    frame shrinks.

    OpenCV's bilinear resize is in fixed point, with 11-bit weights: an eighth of noise's pixels
    come out a level off.
    """
    frame = np.random.default_rng(1).integers(0, 256, (*frame_size, 3), np.uint8)
    spec = ModelSpec(architecture="enet", input_size=size, labels=CAMVID_11, colour=colour)  # type: ignore[arg-type]
    outs = run_calls(
        host,
        tmp_path,
        [preprocess_call(frame, spec, 2), preprocess_call(frame, spec, 2, half=True)],
    )
    got = outs[0]["out"].reshape(1, 3, *size)
    expected = to_input(frame, spec)
    step = coefficients(spec)[0].reshape(1, 3, 1, 1)
    levels = np.abs(got - expected) / step
    assert levels.max() <= (1.001 if frame_size != size else 0)
    assert (levels > 0.5).mean() < (
        0.01 if frame_size >= size and frame_size[1] >= size[1] else 0.2
    )
    assert np.array_equal(outs[1]["out"], outs[0]["out"].astype(np.float16))


def test_bilinear_when_asked_for(host: Path, tmp_path: Path) -> None:
    """The plain bilinear resize, also where the frame shrinks."""
    frame = np.random.default_rng(1).integers(0, 256, (90, 160, 3), np.uint8)
    spec = ModelSpec(
        architecture="enet",
        input_size=(40, 48),
        labels=CAMVID_11,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        scale=1,
    )
    (out,) = run_calls(host, tmp_path, [preprocess_call(frame, spec, 0)])
    resized = cv2.resize(frame, (48, 40), interpolation=cv2.INTER_LINEAR)[:, :, ::-1].transpose(
        2, 0, 1
    )
    assert np.abs(out["out"].reshape(3, 40, 48) - resized.astype(np.float32)).max() <= 1


def rows_of(plane: Array, pitch: int) -> Array:
    """Rows ``pitch`` bytes apart; the last one ends where the plane does, as a cut of a larger
    frame may.
    """
    rows = np.full((len(plane), pitch), 0xCD, np.uint8)
    rows[:, : plane[0].size] = plane.reshape(len(plane), -1)
    return rows.ravel()[: rows.size - pitch + plane[0].size]


@pytest.mark.parametrize("kind", ["bgr", "nv12"])
def test_where_a_frame_lies_changes_no_bit(
    host: Path, program: Path, tmp_path: Path, kind: str
) -> None:
    """Words and bytes give the same: addresses and rows at every byte of a word, boxes of 1 to 10
    columns, whole ones
    and others, and the end of the frame's memory, which AddressSanitizer watches.
    """
    rng = np.random.default_rng(12)
    calls: list[Call] = []
    cases = [
        ((9, 12), (9, 12)),
        ((9, 13), (5, 6)),
        ((8, 16), (4, 4)),
        ((31, 57), (7, 10)),
        ((20, 61), (6, 6)),
        ((7, 5), (9, 3)),
    ]
    for size, net in cases:
        spec = ModelSpec(architecture="enet", input_size=net, labels=CAMVID_11)
        frame = rng.integers(0, 256, (*size, 3), np.uint8)
        chroma = rng.integers(0, 256, ((size[0] + 1) // 2, (size[1] + 1) // 2, 2), np.uint8)
        row = 3 * size[1] if kind == "bgr" else (size[1] + 1) // 2 * 2
        for pitch, skew in itertools.product((row, row + 1, row + 2, -(-row // 4) * 4), range(4)):
            common = {**preprocess_call(frame, spec, 1).settings, "pitch": pitch, "skew": skew}
            if kind == "bgr":
                reads = {"plane": rows_of(frame, pitch)}
            else:
                common |= {"kind": 1, "matrix": 1, "full": 0, "chroma_pitch": pitch}
                reads = {"plane": rows_of(frame[:, :, 0], pitch), "chroma": rows_of(chroma, pitch)}
            calls.append(Call("preprocess", common, reads, {"out": np.float32}))
    done = [one["out"] for one in run_calls(program, tmp_path / "calls", calls)]
    for place in range(0, len(done), 16):
        assert all(same_bits(one, done[place]) for one in done[place : place + 16])
    if program != host:
        on_host = [one["out"] for one in run_calls(host, tmp_path / "host", calls)]
        assert all(same_bits(one, other) for one, other in zip(done, on_host, strict=True))


def test_a_constant_frame_stays_so(host: Path, tmp_path: Path) -> None:
    """Whatever the ratio: sums of weights that are not quite 1 do not lose a level."""
    spec = ModelSpec(
        architecture="enet",
        input_size=(7, 11),
        labels=CAMVID_11,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        scale=1,
    )
    sizes = [
        (7 * a + b, 11 * c + d)
        for a, b, c, d in itertools.product((1, 3, 9), (0, 2, 5), (1, 4, 7), (0, 1, 10))
    ]
    frames = [np.full((*size, 3), (255, 128, 1), np.uint8) for size in sizes]
    for out in run_calls(host, tmp_path, [preprocess_call(frame, spec, 1) for frame in frames]):
        assert np.array_equal(np.unique(out["out"].reshape(3, -1), axis=1), [[1], [128], [255]])


def test_a_divisor_divides(host: Path, tmp_path: Path) -> None:
    """Every quotient is NumPy's: around the multiples of the divisor, where one would be off, up to
    2^31.
    """
    rng = np.random.default_rng(13)
    divisors = [*range(1, 40), 480, 1919, 1920, 2**15 - 1, 2**16 - 2, 65535, 2**30 + 1, 2**31 - 1]
    top = 2**31 - 1
    calls = []
    for by in divisors:
        multiples = by * np.unique(
            np.concatenate([rng.integers(0, top // by + 1, 2000), [0, 1, top // by]])
        )
        near = (multiples[:, None] + np.array([-1, 0, 1])).ravel()
        numbers = np.concatenate([near[(near >= 0) & (near <= top)], [top]]).astype(np.uint32)
        calls.append(Call("divide", {"by": by}, {"numbers": numbers}, {"out": np.uint32}))
    for by, call, out in zip(divisors, calls, run_calls(host, tmp_path, calls), strict=True):
        assert np.array_equal(out["out"], call.reads["numbers"] // by), by


@pytest.mark.parametrize("full", [0, 1])
@pytest.mark.parametrize("matrix", [0, 1])
@pytest.mark.parametrize("size", [(24, 32), (23, 31)])
def test_nv12_is_the_standards(
    host: Path, tmp_path: Path, size: tuple[int, int], matrix: int, full: int
) -> None:
    """ITU-R BT.601 and BT.709 in floating point, and OpenCV's fixed point for the one it has,
    within two levels.
    """
    rng = np.random.default_rng(3)
    height, width = size
    chroma_size = ((height + 1) // 2, (width + 1) // 2)
    luma, uv = (
        rng.integers(0, 256, size, np.uint8),
        rng.integers(0, 256, (*chroma_size, 2), np.uint8),
    )
    settings = {
        "kind": 1,
        "frame": f"{height},{width}",
        "size": f"{height},{width}",
        "pitch": width,
        "matrix": matrix,
        "chroma_pitch": 2 * chroma_size[1],
        "full": full,
        "rgb": 0,
        "resize": 0,
        "gain": "1,1,1",
        "offset": "0,0,0",
    }
    (out,) = run_calls(
        host,
        tmp_path,
        [Call("preprocess", settings, {"plane": luma, "chroma": uv}, {"out": np.float32})],
    )
    got = out["out"].reshape(3, height, width)
    red, blue = (0.2126, 0.0722) if matrix else (0.299, 0.114)
    y = (
        luma.astype(np.float64) if full else np.maximum(luma - 16.0, 0) * 255 / 219
    )  # OpenCV clamps here, too
    u, v = (uv.repeat(2, 0).repeat(2, 1)[:height, :width].astype(np.float64) - 128).transpose(
        2, 0, 1
    )
    u, v = (u, v) if full else (u * 255 / 224, v * 255 / 224)
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    assert np.abs(got - np.stack([b, g, r]).clip(0, 255)).max() <= 0.501
    if not matrix and not full and height % 2 == 0:
        bgr = cv2.cvtColor(np.concatenate([luma, uv.reshape(-1, width)]), cv2.COLOR_YUV2BGR_NV12)
        assert np.abs(got - bgr.transpose(2, 0, 1).astype(np.float32)).max() <= 2


def palette() -> Array:
    """The library's palette: ``palette_lut``, and in the fourth byte whether an id is painted."""
    shown = np.zeros((256, 1), np.uint8)
    shown[: len(CAMVID_11)] = 255
    shown[CAMVID_11.ignore_id] = 0
    return np.hstack([palette_lut(CAMVID_11), shown])


@pytest.mark.parametrize("alpha", [0.0, 0.35, 0.5, 1.0])
@pytest.mark.parametrize(
    ("size", "frame_size"), [((24, 32), (24, 32)), ((24, 32), (61, 90)), ((45, 60), (30, 40))]
)
def test_overlay_is_pythons(
    host: Path, tmp_path: Path, size: tuple[int, int], frame_size: tuple[int, int], alpha: float
) -> None:
    """Labels equal, but where a pixel's centre falls between two (OpenCV's fixed point goes either
    way there); colours
    within a grey level of OpenCV's blend.
    """
    rng = np.random.default_rng(4)
    frame = rng.integers(0, 256, (*frame_size, 3), np.uint8)
    labels = rng.choice(
        np.array([*range(len(CAMVID_11)), 200, CAMVID_11.ignore_id], np.uint8), size
    )
    scores = rng.integers(-3, 4, (len(CAMVID_11), *size)).astype(np.float32)  # many ties
    scores[5, 0, :3] = np.nan
    common = {
        "size": f"{size[0]},{size[1]}",
        "of": f"{frame_size[0]},{frame_size[1]}",
        "alpha": alpha,
        "classes": len(CAMVID_11),
    }
    writes: dict[str, type[np.generic]] = {"picture": np.uint8, "labels_out": np.uint8}
    reads = {"frame": frame, "palette": palette()}
    calls = [
        Call("overlay", common, {"labels": labels, **reads}, writes),
        Call("overlay", {**common, "half": 0}, {"scores": scores, **reads}, writes),
        Call(
            "overlay", {**common, "half": 1}, {"scores": scores.astype(np.float16), **reads}, writes
        ),
    ]
    expected = [labels, scores.argmax(0).astype(np.uint8), scores.argmax(0).astype(np.uint8)]
    for label_map, out in zip(expected, run_calls(host, tmp_path, calls), strict=True):
        got = out["labels_out"].reshape(frame_size)
        centred = [
            (2 * np.arange(to) + 1) * from_ % (2 * to) == 0
            for from_, to in zip(size, frame_size, strict=True)
        ]
        between = centred[0][:, None] | centred[1]
        assert np.array_equal(got[~between], resize_labels(label_map, frame_size)[~between])
        assert between.mean() < 0.1
        painted = overlay(frame, got, CAMVID_11, alpha).astype(np.int16)
        assert np.abs(out["picture"].reshape(frame.shape) - painted).max() <= 1


def test_rows_of_words_and_of_bytes_give_one_picture(program: Path, tmp_path: Path) -> None:
    """Four pixels at a time where rows are aligned, at the end of a row as well, and one by one
    where they are not.
    """
    rng = np.random.default_rng(8)
    writes: dict[str, type[np.generic]] = {"picture": np.uint8, "labels_out": np.uint8}
    calls = []
    widths = (1, 3, 4, 30, 32, 61)
    for width in widths:
        frame, labels = (
            rng.integers(0, 256, (9, width, 3), np.uint8),
            rng.integers(0, 13, (7, 20), np.uint8),
        )
        for pitch, skew in (
            (3 * width, 0),
            (3 * width, 1),
            (-(-3 * width // 4) * 4, 0),
            (3 * width + 1, 0),
        ):
            rows = np.full((9, pitch), 7, np.uint8)
            rows[:, : 3 * width] = frame.reshape(9, -1)
            settings = {
                "size": "7,20",
                "of": f"9,{width}",
                "alpha": 0.4,
                "pitch": pitch,
                "skew": skew,
            }
            calls.append(
                Call(
                    "overlay",
                    settings,
                    {"labels": labels, "frame": rows, "palette": palette()},
                    writes,
                )
            )
    done = run_calls(program, tmp_path / "calls", calls)
    for place, width in enumerate(widths):
        same = done[4 * place : 4 * place + 4]
        pictures = [one["picture"].reshape(9, -1)[:, : 3 * width] for one in same]
        for picture, one in zip(pictures, same, strict=True):
            np.testing.assert_array_equal(picture, pictures[0])
            np.testing.assert_array_equal(one["labels_out"], same[0]["labels_out"])
        assert all(
            (one["picture"].reshape(9, -1)[:, 3 * width :] == 0xAB).all() for one in same
        )  # not a row's
        want = overlay(
            calls[4 * place].reads["frame"].reshape(9, width, 3),
            same[0]["labels_out"].reshape(9, width),
            CAMVID_11,
            0.4,
        ).astype(np.int16)
        assert np.abs(pictures[0].reshape(want.shape) - want).max() <= 1


def test_colours_over_nv12_are_those_over_its_bgr(program: Path, tmp_path: Path) -> None:
    """Within a grey level of converting first, whether words or bytes are read, and the same to the
    bit in both.
    """
    rng = np.random.default_rng(10)
    widths = (1, 3, 4, 30, 32, 61)
    overlays, conversions = [], []
    for width in widths:
        luma, labels = (
            rng.integers(0, 256, (9, width), np.uint8),
            rng.integers(0, 13, (7, 20), np.uint8),
        )
        chroma = rng.integers(0, 256, (5, (width + 1) // 2, 2), np.uint8)
        row = (width + 1) // 2 * 2
        for pitch, skew in ((row, 0), (row, 1), (-(-row // 4) * 4, 0), (row + 1, 0)):
            common = {
                "kind": 1,
                "matrix": 0,
                "full": 0,
                "skew": skew,
                "pitch": pitch,
                "chroma_pitch": pitch,
            }
            planes = {
                "frame": np.resize(rows_of(luma, pitch), 9 * pitch),
                "chroma": rows_of(chroma, pitch),
            }
            overlays.append(
                Call(
                    "overlay",
                    {**common, "size": "7,20", "of": f"9,{width}", "alpha": 0.4},
                    {"labels": labels, "palette": palette(), **planes},
                    {"picture": np.uint8, "labels_out": np.uint8},
                )
            )
        size = f"9,{width}"
        settings = {
            **common,
            "frame": size,
            "size": size,
            "rgb": 0,
            "resize": 2,
            "gain": "1,1,1",
            "offset": "0,0,0",
        }
        conversions.append(
            Call(
                "preprocess",
                settings,
                {"plane": planes["frame"], "chroma": planes["chroma"]},
                {"out": np.float32},
            )
        )
    done = run_calls(program, tmp_path / "overlays", overlays)
    converted = run_calls(program, tmp_path / "conversions", conversions)
    for place, width in enumerate(widths):
        same = done[4 * place : 4 * place + 4]
        for key in ("picture", "labels_out"):
            assert all(np.array_equal(one[key], same[0][key]) for one in same)
        bgr = converted[place]["out"].reshape(3, 9, width).transpose(1, 2, 0)
        wanted = overlay(
            np.ascontiguousarray(bgr.astype(np.uint8)),
            same[0]["labels_out"].reshape(9, width),
            CAMVID_11,
            0.4,
        )
        assert np.abs(same[0]["picture"].reshape(wanted.shape) - wanted.astype(np.int16)).max() <= 1


@pytest.mark.parametrize("height", [5, 9])
def test_four_scores_at_a_time_give_the_labels_of_one(
    program: Path, tmp_path: Path, height: int
) -> None:
    """Where the picture is as wide as the scores, four are read at once; not where their addresses
    do not allow it.
    """
    rng = np.random.default_rng(9)
    scores = rng.integers(-2, 3, (7, 5, 24)).astype(np.float32)  # many ties
    scores[3, :, ::5] = np.nan
    scores[5, 1] = np.nan
    frame = rng.integers(0, 256, (height, 24, 3), np.uint8)
    writes: dict[str, type[np.generic]] = {"picture": np.uint8, "labels_out": np.uint8}
    calls = []
    for half, skew in itertools.product((0, 1), (0, 4)):
        settings = {
            "size": "5,24",
            "of": f"{height},24",
            "alpha": 0.5,
            "classes": 7,
            "half": half,
            "skew": skew,
        }
        reads = {
            "scores": scores.astype(np.float16 if half else np.float32),
            "frame": frame,
            "palette": palette(),
        }
        calls.append(Call("overlay", settings, reads, writes))
    rows = (2 * np.arange(height) + 1) * 5 // (2 * height)
    for out in run_calls(program, tmp_path / "calls", calls):
        assert np.array_equal(out["labels_out"].reshape(height, 24), scores.argmax(0)[rows])


def test_area_is_what_python_takes_to_shrink(host: Path, tmp_path: Path) -> None:
    frame = np.random.default_rng(5).integers(0, 256, (64, 96, 3), np.uint8)
    spec = ModelSpec(
        architecture="enet",
        input_size=(24, 40),
        labels=CAMVID_11,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        scale=1,
    )
    asked, default = run_calls(
        host, tmp_path, [preprocess_call(frame, spec, 1), preprocess_call(frame, spec, 2)]
    )
    assert np.array_equal(asked["out"], default["out"])
    expected = resize_frame(frame, (24, 40))[:, :, ::-1].transpose(2, 0, 1).astype(np.float32)
    assert np.abs(asked["out"].reshape(3, 24, 40) - expected).max() <= 1
