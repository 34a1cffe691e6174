"""The families that need nothing but this repository: gpt-oss needs a published vocabulary and has tests of its own."""

from __future__ import annotations

from serving.checkpoints import families, recipe_for

TRAINED = tuple(family for family in families() if recipe_for(family).vocabulary is None)
