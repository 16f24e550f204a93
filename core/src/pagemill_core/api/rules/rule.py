"""What a cross-field rule is: one sentence in three forms, with examples that keep the forms equal.

Layer: `core.api`. Knows no model; a rule names the model it belongs to (`scope`) by its class name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Example = Any
"""A value of the rule's scope as it stands in a file: camelCase keys, JSON types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule over the fields of one model.

    `cel` is the API server's form, over `self`; `holds` the same in Python, over the model. `message` is one line
    and says what to do. `field` is the path below the scope that the message is about, such as `.bucket`, empty for
    the scope itself. `good` and `bad` are examples that the tests put through both forms.
    """

    scope: str
    cel: str
    holds: Callable[[Any], bool]
    message: str
    field: str = ""
    good: Sequence[Example]
    bad: Sequence[Example]

    def as_validation(self) -> dict[str, str]:
        """The rule as an entry of `x-kubernetes-validations`."""
        entry = {"rule": self.cel, "message": self.message, "reason": "FieldValueInvalid"}
        return {**entry, "fieldPath": self.field} if self.field else entry


def exactly_one(scope: str, names: Mapping[str, str], good: Sequence[Example], bad: Sequence[Example]) -> Rule:
    """The rule that exactly one of the fields is given. `names` maps camelCase to the model's own names."""
    listed = ", ".join(names)
    return Rule(
        scope=scope,
        cel="[" + ", ".join(f"has(self.{name})" for name in names) + "].filter(given, given).size() == 1",
        holds=lambda part: sum(getattr(part, name) is not None for name in names.values()) == 1,
        message=f"give exactly one of {listed}",
        good=good,
        bad=bad,
    )
