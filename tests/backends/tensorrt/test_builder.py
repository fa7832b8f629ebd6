"""What a build reports, and the commands that build the same plan; no TensorRT is needed."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from onnx import NodeProto, helper
from reporting import Heard

from edgeseg.backends.base import PlanOptions
from edgeseg.backends.tensorrt import builder
from edgeseg.backends.tensorrt.bindings import Library, Log, Message
from edgeseg.errors import EngineError, InputError

SHAPES = ((1, 64, 96, 3), (4, 64, 96, 3), (8, 96, 128, 3))


class Monitored(SimpleNamespace):
    """As much of TensorRT as a progress monitor needs."""

    class IProgressMonitor:
        pass


def monitor(heard: Heard) -> Any:
    return builder._monitor(Monitored(), heard)


def test_phases_are_tasks_that_end() -> None:
    heard = Heard()
    phases = monitor(heard)
    phases.phase_start("tactics", None, 2)
    phases.phase_start("inner", "tactics", 1)
    assert phases.step_complete("inner", 0) is True
    phases.phase_finish("inner")
    phases.step_complete("tactics", 0)
    phases.step_complete("tactics", 1)
    phases.phase_finish("tactics")
    assert heard.steps == [
        ("build: tactics", 0, 2),
        ("build: inner", 0, 1),
        ("build: inner", 1, 1),
        ("build: tactics", 1, 2),
        ("build: tactics", 2, 2),
    ]


def test_a_phase_that_ends_before_its_last_step_ends_its_task() -> None:
    heard = Heard()
    phases = monitor(heard)
    phases.phase_start("tactics", None, 5)
    phases.step_complete("tactics", 0)
    phases.phase_finish("tactics")
    assert heard.steps[-1] == ("build: tactics", 5, 5)
    assert len(heard.steps) == 3


def test_warnings_are_those_a_user_should_see() -> None:
    said = [
        Message("warning", " twice "),
        Message("warning", "twice"),
        Message("error", "bad"),
        Message("info", "hello"),
        Message("warning", "this differs from one already registered"),
    ]
    assert builder._warnings(said) == ("twice", "bad")


def scoped(scopes: str) -> NodeProto:
    made = helper.make_node("Relu", ["x"], ["y"])
    entry = made.metadata_props.add()
    entry.key, entry.value = builder._SCOPE, scopes
    return made


@pytest.mark.parametrize(
    ("scopes", "layer"),
    [
        ("['', 'decoder', 'decoder.up', 'relu']", "decoder.up"),
        ("['relu']", ""),
        ("", ""),
        ("[", ""),
        ("3", ""),
    ],
)
def test_the_layer_a_node_comes_from(scopes: str, layer: str) -> None:
    assert builder._source_layer(scoped(scopes)) == layer
    assert builder._source_layer(None) == ""


@pytest.mark.parametrize(
    ("domain", "reason", "advice"),
    [
        ("com.mine", "no importer", "com.mine"),
        ("", "Non-zero zero point is not supported", "symmetric"),
        ("", "types must match: float and half", "`precision=fp32`"),
        ("", "No importer registered for op: Foo", "`target=cpu`"),
        ("", "something else", "opset 17 to 20"),
    ],
)
def test_advice_is_by_the_parsers_reason(domain: str, reason: str, advice: str) -> None:
    assert advice in builder._advice(helper.make_node("Foo", ["x"], ["y"], domain=domain), reason)


# -- libraries and caches --------------------------------------------------------------------------


class Registry(SimpleNamespace):
    """As much of TensorRT's registry as a plugin needs; what it loads it reports."""

    def __init__(self, known: tuple[str, ...] = (), handle: str | None = None) -> None:
        super().__init__(known=known, handle=handle, error_recorder="the application's")
        self.loaded: list[str] = []

    def get_creator(self, name: str, version: str, namespace: str) -> str | None:
        if name in self.known:
            return name
        self.error_recorder.report_error(4, f"IPluginRegistry::getCreator: Error Code 4: no {name}")
        return None

    def load_library(self, path: str) -> str | None:
        self.loaded.append(path)
        if self.handle is None:
            self.error_recorder.report_error(
                3, "IPluginRegistry::loadLibrary: Error Code 3: API Usage Error (no getCreators)"
            )
        return None if self.handle is None else str(self.handle)


def found_with(registry: Registry | None) -> Library:
    log: Any = Log.__new__(Log)
    log.messages = []
    trt = SimpleNamespace(
        get_plugin_registry=lambda: registry,
        IErrorRecorder=object,
        ErrorCodeTRT=SimpleNamespace(UNSPECIFIED_ERROR=1),
    )
    return Library("tensorrt", trt, "10.3", log)


@pytest.fixture(autouse=True)
def _nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "_LOADED", set())


def test_a_plugin_that_is_registered_already_is_not_loaded_again() -> None:
    registry = Registry(builder._PLUGIN_OPERATORS)
    builder.load_plugin(found_with(registry), Path("plugin.so"))
    assert registry.loaded == []
    assert builder.plugin_is_loaded()
    assert registry.error_recorder == "the application's"


def test_a_plugin_is_loaded_once() -> None:
    registry = Registry(handle="handle")
    for _ in range(2):
        builder.load_plugin(found_with(registry), Path("plugin.so"))
    assert registry.loaded == ["plugin.so"]


def test_the_registrys_reason_is_told() -> None:
    registry = Registry()
    with pytest.raises(
        EngineError, match=r"cannot load the plugin: got API Usage Error \(no getCreators\)"
    ):
        builder.load_plugin(found_with(registry), Path("plugin.so"))
    assert registry.error_recorder == "the application's"
    assert not builder.plugin_is_loaded()
    with pytest.raises(EngineError, match="no registry of plugins"):
        builder.load_plugin(found_with(None), Path("plugin.so"))


def test_the_plugins_operators_are_those_of_its_source() -> None:
    source = Path(builder.__file__).with_name("plugin") / "src" / "plugins.cpp"
    for name in builder._PLUGIN_OPERATORS:
        assert f'"{name}"' in source.read_text()


def cache_config(log: list[Message], *, returns: object = "cache", fits: bool = True) -> Any:
    def create(data: bytes) -> object:
        if data == b"garbage":
            log.append(
                Message("error", "IBuilderConfig::createTimingCache: Error Code 4: no magic")
            )
        return returns

    return SimpleNamespace(
        create_timing_cache=create,
        set_timing_cache=lambda cache, ignore: cache is not None and fits,
    )


@pytest.mark.parametrize("returns", [None, "cache"])
def test_an_unreadable_timing_cache_is_refused_and_stays(tmp_path: Path, returns: object) -> None:
    path = tmp_path / "t.cache"
    path.write_bytes(b"garbage")
    found = found_with(None)
    config = cache_config(found.log.messages, returns=returns)
    with pytest.raises(InputError, match=r"t\.cache: is no timing cache: got no magic"):
        builder._timing_cache(config, found, PlanOptions(timing_cache=path))
    assert path.read_bytes() == b"garbage"

    path.write_bytes(b"another GPU's")
    config = cache_config(found.log.messages, fits=False)
    with pytest.raises(InputError, match="another GPU or TensorRT"):
        builder._timing_cache(config, found, PlanOptions(timing_cache=path))
    with pytest.raises(InputError, match="cannot be read as a timing cache: got Is a directory"):
        builder._timing_cache(config, found, PlanOptions(timing_cache=tmp_path))


def test_a_timing_cache_is_begun() -> None:
    found = found_with(None)
    config = cache_config(found.log.messages)
    options = PlanOptions(timing_cache=Path("there-is-none.cache"))
    assert builder._timing_cache(config, found, options) == "cache"
    assert builder._timing_cache(config, found, PlanOptions()) is None


@pytest.mark.parametrize(("flags", "tf32"), [(["tf32", "user"], True), (["user"], False)])
def test_a_plan_in_fp32_does_not_compute_in_tf32(flags: list[str], tf32: bool) -> None:
    kept = ["tf32"]
    config = SimpleNamespace(set_flag=kept.append, clear_flag=kept.remove)
    trt = SimpleNamespace(
        BuilderFlag=SimpleNamespace(TF32="tf32", REQUIRE_USER_ALLOCATION="user"),
        ProfilingVerbosity=SimpleNamespace(DETAILED=1),
    )
    made = SimpleNamespace(create_builder_config=lambda: config)
    found = Library("tensorrt", trt, "10.3", found_with(None).log)
    builder._config(made, found, PlanOptions(), (), tf32=tf32)
    assert kept == flags


def test_trtexec_is_found_where_jetpack_puts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "trtexec"
    program.touch()
    monkeypatch.setattr(builder, "_TRTEXEC", program)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    options = PlanOptions()
    build, run = builder.trtexec("e.engine", "e.onnx", "tensorrt", options, (), tf32=False)
    assert build.split()[0] == run.split()[0] == str(program)
    assert build.endswith("--noTF32")
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/trtexec")
    assert builder.trtexec("e", "e", "tensorrt", options, ())[1].startswith("trtexec ")


def test_trtexecs_commands() -> None:
    plugin = Path("/lib/plugin.so")
    options = PlanOptions(workspace_mib=512, level=3, timing_cache=Path("t.cache"))
    build, run = builder.trtexec("e.engine", "e.onnx", "tensorrt", options, (), plugin, SHAPES)
    assert build == (
        "trtexec --onnx=e.onnx --saveEngine=e.engine --skipInference --stronglyTyped "
        "--memPoolSize=workspace:512M "
        "--builderOptimizationLevel=3 --timingCacheFile=t.cache --minShapes=frame:1x64x96x3 "
        "--optShapes=frame:4x64x96x3 --maxShapes=frame:8x96x128x3 --dynamicPlugins=/lib/plugin.so"
    )
    assert run == (
        "trtexec --loadEngine=e.engine --useCudaGraph --noDataTransfers --shapes=frame:4x64x96x3 "
        "--dynamicPlugins=/lib/plugin.so"
    )
    build, run = builder.trtexec("a b", "e.onnx", "tensorrt-rtx", PlanOptions(), (86, 120))
    assert (
        build == "tensorrt_rtx --onnx=e.onnx '--saveEngine=a b' --skipInference "
        "--computeCapabilities=86,120"
    )
    assert run == "tensorrt_rtx '--loadEngine=a b' --useCudaGraph --noDataTransfers"
