"""The machine's limits, and which of them bounds a layer."""

from pathlib import Path

import pytest

from edgeseg.profiling import roofline
from edgeseg.profiling.engine_record import LayerRow, LayerTable
from edgeseg.profiling.results import Limits

LIMITS = Limits(memory_gb_s=10, cache_gb_s=50, gmac_s={"fp32": 100, "int8": 400}, how="")


def judged(precision: str, multiply_adds: int, size: int, ms: float = 1.0) -> LayerRow:
    row = LayerRow(
        name="layer",
        kind="Convolution",
        kernel="brgconv",
        precision=precision,
        ms=ms,
        multiply_adds=multiply_adds,
        bytes=size,
    )
    table = LayerTable(rows=[row], graph_ms=ms, layers_ms=ms, calls=1)
    return roofline.judge(table, LIMITS).rows[0]


def test_the_ridge_is_between_memory_and_arithmetic() -> None:
    """10 GB/s and 100 G multiply-adds a second meet at 10 multiply-adds a byte; in INT8 at 40."""
    assert judged("fp32", 11_000_000, 1_000_000).bound == "arithmetic"
    assert judged("fp32", 9_000_000, 1_000_000).bound == "memory"
    assert judged("int8", 11_000_000, 1_000_000).bound == "memory"
    assert judged("fp32", 0, 1_000_000).bound == "memory"


def test_share_of_the_limit() -> None:
    assert judged("fp32", 50_000_000, 1_000, ms=1.0).of_limit == pytest.approx(0.5)
    assert judged("fp32", 0, 5_000_000, ms=1.0).of_limit == pytest.approx(0.5)
    assert judged("fp32", 0, 5_000_000, ms=0.0).of_limit is None


def test_limits_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "_LEAST_ARRAY", 8 << 20)
    monkeypatch.setattr(roofline, "_MOST_ARRAY", 8 << 20)
    monkeypatch.setattr(roofline, "_SIDE", 256)
    limits = roofline.measure_limits()
    assert 0.05 < limits.memory_gb_s < 5000
    assert 0.05 < limits.cache_gb_s < 50_000
    assert 0.1 < limits.gmac_s["fp32"] < 1e6
    assert "triad of three arrays of 8 MiB" in limits.how


def test_int8_products_run_in_int8() -> None:
    """Otherwise the limit would be that of another precision."""
    from edgeseg.backends.openvino import runtime

    if "INT8" not in runtime.device().features:
        pytest.skip("this processor has no INT8")
    kernels: list[str] = []
    opened = roofline._opened

    def watched(*arguments: object) -> object:
        request = opened(*arguments)  # type: ignore[arg-type]
        model = request.get_compiled_model().get_runtime_model()
        for node in model.get_ordered_ops():
            facts = node.get_rt_info()
            if str(facts["layerType"].value) == "Convolution":
                kernels.append(str(facts["primitiveType"].value))
        return request

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roofline, "_opened", watched)
        patch.setattr(roofline, "_SIDE", 128)
        roofline._product_gmac_s("int8")
    assert len(kernels) == roofline._PRODUCTS
    assert all(kernel.endswith("_i8") for kernel in kernels)


def test_the_size_of_the_last_cache(tmp_path: Path) -> None:
    folder = tmp_path / "sys/devices/system/cpu/cpu0/cache"
    for index, size in enumerate(("48K", "2048K", "36M")):
        (folder / f"index{index}").mkdir(parents=True)
        (folder / f"index{index}/size").write_text(f"{size}\n")
    assert roofline._last_cache_bytes(tmp_path) == 36 << 20
    assert roofline._last_cache_bytes(tmp_path / "nothing") == 32 << 20
