"""Open the inputs of a command: a recipe, an engine, a source of frames."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.cli.console import ConsoleReporter, tell_assumed, waiting
from edgeseg.cli.options import DataOptions, EngineOptions
from edgeseg.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeseg.backends.engine import Engine
    from edgeseg.cli.video_options import SourceOptions
    from edgeseg.data import Dataset
    from edgeseg.graph.network import Network, Overrides
    from edgeseg.quantize.ptq import FoldedNetwork
    from edgeseg.reporter import Reporter
    from edgeseg.training.recipe import Recipe
    from edgeseg.video import Source


def read_recipe(
    path: Path, *, data: str | None = None, epochs: int | None = None, encoder: str | None = None
) -> "Recipe":
    """Read a recipe, and replace the values that the command line gives.

    Parameters
    ----------
    path : the recipe, a TOML file.
    data : address of the data; None to keep the recipe's.
    epochs : number of epochs; None to keep the recipe's.
    encoder : file of encoder weights, or ``torchvision``; None to keep the recipe's.

    Raises
    ------
    InputError : there is no such recipe, or a value of it is wrong.
    """
    from edgeseg.training.recipe import load_recipe, with_changes

    values = {"data.address": data, "fit.epochs": epochs, "model.encoder": encoder}
    changes: dict[str, object] = {}
    for key, value in values.items():
        if value is not None:
            changes[key] = value
    return with_changes(load_recipe(path), changes)


def open_engine(
    name: str, options: EngineOptions, overrides: "Overrides | None" = None
) -> "Engine":
    """Open an engine, and show that while it takes; an ONNX file is compiled first.

    Parameters
    ----------
    name : an engine file, an ONNX file, or a model that ships with edgeseg.
    options : precision and target.
    overrides : facts of an ONNX file without a spec.

    Raises
    ------
    InputError : there is no such engine, or it has another precision or target.
    EngineError : the engine is damaged, out of date, or another machine's.
    """
    from edgeseg.build.engine_cache import resolve_engine

    with ConsoleReporter(waiting=f"opening {name}") as reporter:
        engine = resolve_engine(
            name,
            precision=options.precision.value,
            target=options.target,
            overrides=overrides,
            reporter=reporter,
        )
    tell_assumed(engine.passport.assumed)
    return engine


def find_onnx(name: str) -> Path:
    """Return the ONNX file of a name.

    Parameters
    ----------
    name : a file or, if there is no such file, a model that ships with edgeseg.

    Raises
    ------
    InputError : neither a file nor a model that ships has this name.

    Examples
    --------
    >>> find_onnx("enet-camvid").name
    'enet-camvid.onnx'
    """
    from edgeseg.zoo import zoo

    path = Path(name)
    if path.is_file():
        return path

    shipped = zoo()
    if name not in shipped:
        raise InputError(
            "no such model",
            got=repr(name),
            expected=f"an .onnx file or a model that ships with edgeseg ({', '.join(shipped)})",
            hint=did_you_mean(name, shipped),
        )
    return shipped[name]


def open_folded(path: Path, overrides: "Overrides") -> "FoldedNetwork":
    """Read a float ONNX file in the form that quantization starts from.

    Its tensors have the names for which ``build-engine`` needs ranges.

    Parameters
    ----------
    path : the ONNX file.
    overrides : facts of a file without a spec.

    Raises
    ------
    InputError : a fact is missing or contradicts the file; or no layer can run in INT8.
    GraphError : the file cannot be read.
    """
    from edgeseg.graph.network import load_network
    from edgeseg.quantize.ptq import fold_network

    network = load_network(path, overrides)
    folded = fold_network(network)
    tell_assumed(network.assumed)
    return folded


def open_labelled(options: DataOptions, network: "Network") -> "Dataset | None":
    """Open labelled data to score a network on, if any is given.

    Parameters
    ----------
    options : address and split of the data.
    network : the network; its labels must be those of the data.

    Raises
    ------
    InputError : there is no such data.
    DataError : the labels differ, or the data has no such split.
    """
    from edgeseg.data import open_dataset
    from edgeseg.metrics.evaluate import check_labels

    if not options.data:
        return None
    dataset = open_dataset(options.data, options.split)
    check_labels(network.spec.labels, dataset.labels, dataset.name)
    return dataset


def open_sources(
    words: "Sequence[str]", options: "SourceOptions", reporter: "Reporter"
) -> "Source":
    """Open the sources of a run, and show that while it takes.

    Parameters
    ----------
    words : videos, pictures, folders, globs, camera numbers, streams or ``synthetic://``.
    options : which frames are read, and what happens when a camera stops.
    reporter : receives notes about the sources.

    Returns
    -------
    The source, or all of them as one.

    Raises
    ------
    InputError : there is no such source, or it cannot be read.
    """
    from edgeseg import video
    from edgeseg.video.redact import redacted
    from edgeseg.video.sources import described

    live = replace(options.as_live(), on_wait=reporter.warning)
    playback = options.as_playback()
    opened: list[Source] = []
    try:
        for address in video.expand_sources(words):
            with waiting(f"opening {redacted(described(address))}"):
                opened.append(video.open_source(address, live=live, playback=playback))
    except BaseException:
        for source in opened:
            source.close()
        raise

    for source in opened:
        for note in source.notes:
            reporter.info(note)
    return opened[0] if len(opened) == 1 else video.merge(opened)
