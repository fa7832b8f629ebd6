"""A recipe small enough to train in a test."""

from pathlib import Path

from edgeseg.training.recipe import Recipe, load_recipe, with_changes

TINY = """
name = "tiny"
[model]
architecture = "enet"
input_size = [64, 96]
[data]
address = "synthetic://?length=24&size=96x64&seed=1"
[augment]
flip = 0.5
scale = [0.8, 1.25]
[optim]
lr = 5e-3
[fit]
epochs = 4
batch = 4
workers = 0
ema = 0.9
"""


def write(folder: Path, text: str) -> Path:
    """The recipe as a file."""
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def tiny(folder: Path, **changes: object) -> Recipe:
    """``TINY``, with ``section__key`` changed."""
    recipe = load_recipe(write(folder, TINY))
    return with_changes(recipe, {key.replace("__", "."): value for key, value in changes.items()})
