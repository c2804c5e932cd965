"""The command line; everything it does is a few lines of Python as well."""

from .app import main

__all__ = ["main"]
