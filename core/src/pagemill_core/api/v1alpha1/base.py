"""What every model of the API has in common: strict, frozen, camelCase outside, and checked by the table of rules.

Layer: `core.api`. No I/O. The models are the only source of the CRDs, of docs/reference/api.md and of what the
command line accepts.

Defaults. A field that the user may leave out is None in the model and absent from the CRD's defaults, because a
default stored inside an immutable part would break a later `kubectl replace` of the same file. What holds then is
said by the property `effective_<field>` beside it and nowhere else; the work key and the reference page read it there.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from pagemill_core.api.rules import Rule, rules_for


class ApiModel(BaseModel):
    """The base of every part of a job's file."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,  # what was given may be a secret in the wrong place
        populate_by_name=True,
        strict=True,
        serialize_by_alias=True,
    )

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """The cross-field rules of this model, those of its base models first."""
        return tuple(rule for model in reversed(cls.__mro__) for rule in rules_for(model.__name__))

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        written = handler.resolve_ref_schema(handler(schema))
        if cls.rules():
            written["x-kubernetes-validations"] = [rule.as_validation() for rule in cls.rules()]
        return written

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, given: Any) -> Any:
        # As the API server does for fields that are not nullable: `x: null` and no `x` are one thing.
        if isinstance(given, dict):
            return {name: value for name, value in given.items() if value is not None}
        return given

    @model_validator(mode="after")
    def _obey_rules(self) -> ApiModel:
        broken = [rule for rule in self.rules() if not rule.holds(self)]
        if broken:
            problems = [{"field": rule.field, "message": rule.message} for rule in broken]
            text = "; ".join(rule.message for rule in broken)
            raise PydanticCustomError("rules", "{text}", {"text": text, "problems": problems})
        return self
