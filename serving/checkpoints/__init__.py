"""Small checkpoints of the true architectures, so that a real vLLM can serve a whole fleet on a laptop.

They are built here, from text in this package and weights from a fixed seed; nothing is downloaded. What they
say is noise, but every part of the path is real: configuration, tokenizer, chat template, weight names, tool
and reasoning markers. Importing this package must stay cheap: torch and transformers are imported only while
something is built.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from serving.checkpoints.adapters import ADAPTERS, make_adapter
from serving.checkpoints.recipe import CheckpointError, Recipe
from serving.checkpoints.recipes import UnknownCheckpoint, families, family_of, recipe_for
from serving.checkpoints.store import aside, publish

__all__ = ["ADAPTERS", "CheckpointError", "UnknownCheckpoint", "families", "family_of", "make", "make_adapter",
           "make_all", "make_at", "path_of", "recipe_for"]


def path_of(family: str, root: Path) -> Path:
    """Where `make` puts the family's checkpoint, `root/<family>-<12 hex digits>`; it need not exist yet.

    Raises UnknownCheckpoint for a family that has no recipe.
    """
    recipe = recipe_for(family)
    return Path(root) / f"{recipe.family}-{recipe.digest()}"


def make(family: str, root: Path) -> Path:
    """The family's checkpoint below root, built now (some seconds) or reused (at once).

    Safe to call from several processes and threads: the first builds, the others wait for it. A build that
    dies leaves nothing visible. Raises UnknownCheckpoint for a family that has no recipe, MissingVocabulary (both are
    CheckpointError) for one whose vocabulary is not here, OSError if root is unusable.
    """
    recipe = recipe_for(family)
    return publish(path_of(family, root), recipe.family, partial(_write, recipe))


def make_at(family: str, folder: Path) -> Path:
    """The family's checkpoint as `folder` itself, which must not be there yet; whole or absent, as `make`'s.

    Raises what `make` raises, and FileExistsError.
    """
    recipe = recipe_for(family)
    if folder.exists():
        raise FileExistsError(f"{folder} is there already")
    return aside(folder, partial(_write, recipe))


def _write(recipe: Recipe, folder: Path) -> None:
    from serving.checkpoints.build import write

    write(recipe, folder)


def make_all(names: Iterable[str], root: Path) -> dict[str, Path]:
    """`make` for each name, in order, in this process, which pays the heavy imports once: {family: folder}.

    Every name is checked before anything is built.
    """
    wanted = [recipe_for(name) for name in names]
    return {recipe.family: make(recipe.family, root) for recipe in wanted}
