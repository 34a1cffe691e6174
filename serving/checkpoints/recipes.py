"""The families that there are recipes for, by name. Data only, and light: see `recipe`."""

from __future__ import annotations

from collections.abc import Mapping

from serving.checkpoints.makers import deepseek, gptoss, kimi, llama, qwen, seed
from serving.checkpoints.recipe import CheckpointError, Recipe

RECIPES: Mapping[str, Recipe] = {
    recipe.family: recipe
    for maker in (qwen, deepseek, kimi, seed, llama, gptoss)
    for recipe in maker.RECIPES
}


class UnknownCheckpoint(CheckpointError):
    """No recipe for a family. `family` is the name asked for, `nearest` the closest one there is, or None."""

    def __init__(self, family: str) -> None:
        from difflib import get_close_matches

        close = get_close_matches(str(family), RECIPES, n=1, cutoff=0.4)
        self.family = family
        self.nearest = close[0] if close else None
        hint = f" did you mean {self.nearest!r}?" if self.nearest else ""
        super().__init__(f"no checkpoint family {family!r};{hint} there are: {', '.join(RECIPES)}")


def families() -> tuple[str, ...]:
    """Names that `make` knows."""
    return tuple(RECIPES)


def recipe_for(family: str) -> Recipe:
    """The family's recipe. Raises UnknownCheckpoint."""
    try:
        return RECIPES[family]
    except (KeyError, TypeError):
        raise UnknownCheckpoint(family) from None


def family_of(name: str) -> str:
    """The family of a name: a family's own, or an architecture class (its first family). Raises UnknownCheckpoint."""
    if name in RECIPES:
        return name
    return next((recipe.family for recipe in RECIPES.values() if recipe.architecture == name), None) or recipe_for(
        name
    ).family
