"""Recipes: settings that methods are compared on, by name; each is a YAML file in this package."""

from .recipe import Recipe, read_recipe, recipe_names, recipe_of

__all__ = ["Recipe", "read_recipe", "recipe_names", "recipe_of"]
