"""Open what a command is given: a recipe, an engine, a source of frames."""

from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.cli.console import tell_assumed, waiting
from edgeseg.cli.options import Precision

if TYPE_CHECKING:
    from edgeseg.backends.engine import Engine
    from edgeseg.graph.network import Overrides
    from edgeseg.training.recipe import Recipe
    from edgeseg.video import Source


def read_recipe(
    path: Path, *, data: str | None = None, epochs: int | None = None, encoder: str | None = None
) -> "Recipe":
    """Return a recipe with the values that the command line gives instead of its own."""
    from edgeseg.training.recipe import load_recipe, with_changes

    changes = {"data.address": data, "fit.epochs": epochs, "model.encoder": encoder}
    return with_changes(load_recipe(path), {key: value for key, value in changes.items() if value is not None})


def open_engine(name: str, precision: Precision, target: str, overrides: "Overrides | None" = None) -> "Engine":
    """Open an engine by file or shipped name; compile an ``.onnx`` file first."""
    from edgeseg.build.engine_cache import resolve_engine

    with waiting(f"opening {name}"):
        engine = resolve_engine(name, precision=precision.value, target=target, overrides=overrides)
    tell_assumed(engine.passport.assumed)
    return engine


def open_source(uri: str) -> "Source":
    """Open a source of frames by address, and say so while it takes its time."""
    from edgeseg import video

    with waiting(f"opening {uri}"):
        return video.open_source(uri)
