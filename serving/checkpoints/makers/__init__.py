"""Recipes by who makes the models: one module each, all alike, so that a family's markers and sizes stand together."""
