"""Claims of papers as predicates over records, and verdicts on them.

A plug-in needs three names: `from bench.claims import Numbers, Quantity, register_predicate`.
"""

from bench.claims.numbers import Numbers
from bench.claims.predicates import Condition, Predicate, Quantity, get, names, register_predicate

__all__ = ["Condition", "Numbers", "Predicate", "Quantity", "get", "names", "register_predicate"]
