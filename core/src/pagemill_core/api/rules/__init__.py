"""The one table of cross-field rules: it makes the CRDs' CEL rules, drives the models' own checks and the tests.

Layer: `core.api`. Knows no model by import, so that the models can ask it. `RULES` judge one object;
`core.api.mutability` says what may change between two.
"""

from __future__ import annotations

from functools import cache

from pagemill_core.api.rules.parts import PART_RULES
from pagemill_core.api.rules.rule import Example, Rule
from pagemill_core.api.rules.specs import SPEC_RULES

RULES: tuple[Rule, ...] = (*PART_RULES, *SPEC_RULES)


@cache
def rules_for(scope: str) -> tuple[Rule, ...]:
    """The rules of one model, by its class name; none for most models."""
    return tuple(rule for rule in RULES if rule.scope == scope)


__all__ = ["RULES", "Example", "Rule", "rules_for"]
