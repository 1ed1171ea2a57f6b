"""A patchbench plug-in: what the entry point names is imported from here."""

from patchbench_example.pairs import Pairs

__all__ = ["Pairs"]
