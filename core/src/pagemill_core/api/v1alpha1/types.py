"""The scalar types that fields are made of: bounded strings with a pattern, and int-or-string values.

Layer: `core.api`. Patterns are in the dialect that RE2 (the API server) and Rust (pydantic) share: no look-around.
`PATTERN_HINTS` says in words what a pattern wants; the messages of `core.api.load` use it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, PlainValidator, StringConstraints, WithJsonSchema
from pydantic.alias_generators import to_snake
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from pagemill_core.api.rules import rules_for

_PATH = r"([^:]|:[^/]|:/[^/])+"  # anything that holds no "://"
_BUCKET = r"s3://[A-Za-z0-9][A-Za-z0-9._-]{1,62}"
STORE_URI_PATTERN = rf"^({_BUCKET}(/.*)?|file:///.+|{_PATH})$"
LIST_URI_PATTERN = rf"^({_BUCKET}(/.*)?|https?://.+|file:///.+|{_PATH})$"
MODEL_URI_PATTERN = rf"^({_BUCKET}(/.*)?|file:///.+|hf://[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+)?|{_PATH})$"
ENDPOINT_PATTERN = r"^(https?://[^/?#@\s]+(/[^?#@\s]*)?)?$"
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
OBJECT_NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
QUANTITY_PATTERN = r"^([0-9]+([.][0-9]*)?|[.][0-9]+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
MONEY_PATTERN = r"^(0|[1-9][0-9]{0,11})([.][0-9]{1,6})?$"
COUNT_OR_PERCENT_PATTERN = r"^((0|[1-9][0-9]{0,11})|(100|[1-9]?[0-9]([.][0-9]{1,6})?)%)$"
FRACTION_PATTERN = r"^(0|[1-9][0-9]{0,2})([.][0-9]{1,3})?$"
RATIO_PATTERN = r"^(0([.][0-9]{1,6})?|1([.]0{1,6})?)$"
KEY_PREFIX_PATTERN = r"^([^/.\x00-\x1f\x7f][^/\x00-\x1f\x7f]*(/[^/.\x00-\x1f\x7f][^/\x00-\x1f\x7f]*)*)?$"
DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"
CLASS_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$"
RUN_PATTERN = r"^[0-9]{8}-[0-9a-f]{8}$"
MOUNT_PATTERN = r"^(/[A-Za-z0-9_][A-Za-z0-9._-]*)+$"
WORD_PATTERN = r"^[a-z][A-Za-z0-9-]*$"
LANGUAGE_PATTERN = r"^[A-Za-z][A-Za-z0-9_-]{1,34}$"
ENV_NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
CURRENCY_PATTERN = r"^[A-Z]{3}$"

PATTERN_HINTS = {
    STORE_URI_PATTERN: "must be s3://bucket/key, file:///folder, or a path without a scheme",
    LIST_URI_PATTERN: "must be s3://bucket/key, http(s)://host/path, file:///path, or a path without a scheme",
    MODEL_URI_PATTERN: "must be s3://bucket/key, file:///folder, hf://organisation/model, or a path without a scheme",
    ENDPOINT_PATTERN: "must be an http:// or https:// address without user name, password, query or fragment",
    NAME_PATTERN: "must be lower-case letters, digits and '-', with a letter or a digit at both ends",
    OBJECT_NAME_PATTERN: "must be lower-case letters, digits, '-' and '.', with a letter or a digit at both ends",
    QUANTITY_PATTERN: "must be a quantity such as 500m, 2, 512Mi or 8Gi",
    MONEY_PATTERN: 'must be a decimal number in quotes, such as "25.00"',
    COUNT_OR_PERCENT_PATTERN: 'must be a count or a percentage in quotes, such as "25" or "1%"',
    FRACTION_PATTERN: 'must be a number in quotes with at most three decimals, such as "0.25" or "2"',
    RATIO_PATTERN: 'must be a number from 0 to 1 in quotes, such as "0.95"',
    KEY_PREFIX_PATTERN: "must be a folder below the output, without '/' at its ends and with no part starting with '.'",
    DIGEST_PATTERN: "must be sha256: and 64 hexadecimal digits in lower case",
    CLASS_PATTERN: "must name a Python class as package.module:Class",
    RUN_PATTERN: "must be a run id such as 00000007-9c66e1f0; `pagemill runs` lists them",
    MOUNT_PATTERN: "must be an absolute path of letters, digits, '.', '_' and '-', no part starting with '.'",
    WORD_PATTERN: "must start with a lower-case letter and hold only letters, digits and '-'",
    LANGUAGE_PATTERN: "must be a language code such as en, de, ja or zh-Hans",
    ENV_NAME_PATTERN: "must be letters, digits and '_', not starting with a digit",
    CURRENCY_PATTERN: "must be a currency code of three capital letters, such as USD",
}


def _text(pattern: str, max_length: int, min_length: int = 0) -> StringConstraints:
    return StringConstraints(pattern=pattern, max_length=max_length, min_length=min_length)


Text = Annotated[str, StringConstraints(min_length=1, max_length=256)]
LongText = Annotated[str, StringConstraints(max_length=1024)]
StoreUri = Annotated[str, _text(STORE_URI_PATTERN, 1024, 1)]
ListUri = Annotated[str, _text(LIST_URI_PATTERN, 1024, 1)]
ModelUri = Annotated[str, _text(MODEL_URI_PATTERN, 1024, 1)]
Endpoint = Annotated[str, _text(ENDPOINT_PATTERN, 1024)]
Name = Annotated[str, _text(NAME_PATTERN, 63, 1)]
ObjectName = Annotated[str, _text(OBJECT_NAME_PATTERN, 253, 1)]
Money = Annotated[str, _text(MONEY_PATTERN, 24, 1)]
CountOrPercent = Annotated[str, _text(COUNT_OR_PERCENT_PATTERN, 16, 1)]
Fraction = Annotated[str, _text(FRACTION_PATTERN, 8, 1)]
Ratio = Annotated[str, _text(RATIO_PATTERN, 8, 1)]
KeyPrefix = Annotated[str, _text(KEY_PREFIX_PATTERN, 240)]
Digest = Annotated[str, _text(DIGEST_PATTERN, 71, 71)]
PythonClass = Annotated[str, _text(CLASS_PATTERN, 253, 3)]
RunId = Annotated[str, _text(RUN_PATTERN, 17, 17)]
MountPath = Annotated[str, _text(MOUNT_PATTERN, 253, 2)]
Word = Annotated[str, _text(WORD_PATTERN, 63, 1)]
Language = Annotated[str, _text(LANGUAGE_PATTERN, 35, 2)]
EnvName = Annotated[str, _text(ENV_NAME_PATTERN, 128, 1)]
Currency = Annotated[str, _text(CURRENCY_PATTERN, 3, 3)]


def _check_count_or_auto(given: Any) -> int | str:
    text_or_int = isinstance(given, (int, str)) and not isinstance(given, bool)
    broken = [rule.message for rule in rules_for("CountOrAuto") if not text_or_int or not rule.holds(given)]
    if broken:
        raise PydanticCustomError("rules", "{text}", {"text": broken[0]})
    return given  # type: ignore[no-any-return]


def _check_quantity(given: Any) -> str:
    if isinstance(given, bool) or not isinstance(given, (int, str)) or not re.fullmatch(QUANTITY_PATTERN, str(given)):
        hint = PATTERN_HINTS[QUANTITY_PATTERN]
        raise PydanticCustomError("rules", "{text}", {"text": hint})
    return str(given)


_INT_OR_STRING = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}

CountOrAuto = Annotated[
    int | str,
    PlainValidator(_check_count_or_auto),
    WithJsonSchema(
        {**_INT_OR_STRING, "x-kubernetes-validations": [rule.as_validation() for rule in rules_for("CountOrAuto")]}
    ),
]
"""A positive count, or the word `auto`."""

Quantity = Annotated[
    str,
    PlainValidator(_check_quantity),
    WithJsonSchema({**_INT_OR_STRING, "pattern": QUANTITY_PATTERN, "maxLength": 32}),
]
"""A Kubernetes quantity. A bare integer is taken as its text, so `cpu: 2` and `cpu: "2"` are one value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """The bounds of a list, and how Kubernetes compares and merges it.

    `atomic`: as a whole, order counts. `set`: order does not count, so it is sorted here. `map`: one entry for each
    value of `map_key`. The API server refuses duplicates in the last two; so does this.
    """

    kind: Literal["atomic", "set", "map"] = "atomic"
    max_length: int
    min_length: int = 0
    map_key: str = ""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: Any = handler(source)  # a tuple schema; lax about list and tuple only, its items stay strict
        schema.update(strict=False, max_length=self.max_length, min_length=self.min_length)
        return core_schema.no_info_after_validator_function(self._check, schema)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        written = {**handler(schema), "maxItems": self.max_length, "x-kubernetes-list-type": self.kind}
        if self.min_length:
            written["minItems"] = self.min_length
        else:
            written.pop("minItems", None)
        if self.map_key:
            written["x-kubernetes-list-map-keys"] = [self.map_key]
        return written

    def _check(self, items: tuple[Any, ...]) -> tuple[Any, ...]:
        if self.kind == "atomic":
            return items
        keys = [getattr(item, to_snake(self.map_key)) if self.map_key else item for item in items]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise PydanticCustomError("rules", "{text}", {"text": f"{', '.join(twice)} stands here twice; keep one"})
        return tuple(sorted(items)) if self.kind == "set" else items
