"""Noise operators by name.

noisy = OPERATORS["drop"]("some text", level=0.1, seed=0)
noisy.text, noisy.origin
"""

from bench.evaluation.noise import letters, words
from bench.evaluation.noise.base import NONE, Noised, Operator

OPERATORS: dict[str, Operator] = {operator.name: operator for operator in (*letters.OPERATORS, *words.OPERATORS)}
PAPER = ("ant_speak", "drop", "random_case", "repeat", "upper_case")
"""Those of BLT's table, in the order that the paper has."""

__all__ = ["NONE", "OPERATORS", "PAPER", "Noised", "Operator"]
