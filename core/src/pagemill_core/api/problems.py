"""What is wrong with a job's file, in words that say what to do.

Layer: `core.api`. Turns pydantic's errors into messages; shows what was given only where it is one of a few words,
because a secret may stand in the wrong place.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pagemill_core.api.v1alpha1.base import ApiModel
from pagemill_core.api.v1alpha1.types import PATTERN_HINTS

_MANY_FIELDS = 14
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_<-]+")


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong, or to be warned of. `path` is as `dotted` writes it, empty for the whole document."""

    line: int
    path: str
    message: str
    origin: str

    def __str__(self) -> str:
        where = f"{self.origin}:{self.line}"
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


def dotted(path: tuple[str | int, ...]) -> str:
    """A path as people write it, on one line: `spec.engine.languages[1]`, `metadata.labels["example.org/a"]`."""
    text = ""
    for name in path:
        text += f".{name}" if _PLAIN_NAME.fullmatch(str(name)) and isinstance(name, str) else f"[{json.dumps(name)}]"
    return text.removeprefix(".")


def explain(error: ValidationError, model: type[ApiModel]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every problem that pydantic found: the field's path, and what to do."""
    for details in error.errors(include_url=False):
        path = tuple(details["loc"])
        broken = details.get("ctx", {}).get("problems")
        if details["type"] == "rules" and broken:
            for one in broken:
                yield (*path, *one["field"].removeprefix(".").split(".")) if one["field"] else path, one["message"]
        else:
            yield path, _message(details, model)


def _message(details: ErrorDetails, model: type[ApiModel]) -> str:
    say = _MESSAGES.get(details["type"])
    return say(details, model) if say is not None else details["msg"]


def _unknown(details: ErrorDetails, model: type[ApiModel]) -> str:
    *around, name = details["loc"]
    part = _model_at(model, tuple(around))
    known = sorted(field.alias or key for key, field in part.model_fields.items()) if part else []
    close = difflib.get_close_matches(str(name), known, n=1)
    if close:
        return f"is no field here; did you mean {close[0]}?"
    listed = f"; the fields here are {', '.join(known)}" if 0 < len(known) <= _MANY_FIELDS else ""
    return f"is no field here; remove it{listed}"


def _missing(details: ErrorDetails, model: type[ApiModel]) -> str:
    *around, name = details["loc"]
    part = _model_at(model, tuple(around))
    for field in part.model_fields.values() if part else ():
        if field.alias == name and field.description:
            return f"is required: {field.description}"
    return "is required"


def _choice(details: ErrorDetails, _: type[ApiModel]) -> str:
    expected = details["ctx"]["expected"].replace("'", "")
    return f"must be {expected}"


def _text(details: ErrorDetails, _: type[ApiModel]) -> str:
    if isinstance(details["input"], bool):
        return "must be text; put it in quotes (without, YAML reads no, yes, on and off as booleans)"
    return "must be text; put it in quotes" if isinstance(details["input"], (int, float)) else "must be text"


def _pattern(details: ErrorDetails, _: type[ApiModel]) -> str:
    pattern = details["ctx"]["pattern"]
    return PATTERN_HINTS.get(pattern, f"must match {pattern}")


def _limit(words: str) -> Callable[[ErrorDetails, type[ApiModel]], str]:
    return lambda details, _: words.format(**details["ctx"])


def _fixed(words: str) -> Callable[[ErrorDetails, type[ApiModel]], str]:
    return lambda _details, _model: words


_MESSAGES: Mapping[str, Callable[[ErrorDetails, type[ApiModel]], str]] = {
    "bool_type": _fixed("must be true or false, without quotes"),
    "dict_type": _fixed("must be an object with fields"),
    "extra_forbidden": _unknown,
    "finite_number": _fixed("must be a finite number"),
    "greater_than_equal": _limit("must be {ge} or more"),
    "int_from_float": _fixed("must be a whole number"),
    "int_type": _fixed("must be a whole number, without quotes"),
    "less_than_equal": _limit("must be {le} or less"),
    "literal_error": _choice,
    "missing": _missing,
    "model_type": _fixed("must be an object with fields"),
    "rules": lambda details, _: details["msg"],
    "string_pattern_mismatch": _pattern,
    "string_too_long": _limit("must have at most {max_length} characters"),
    "string_too_short": _fixed("must not be empty"),
    "string_type": _text,
    "too_long": _limit("must have at most {max_length} entries"),
    "too_short": _limit("must have at least {min_length} entries"),
    "tuple_type": _fixed("must be a list"),
}


def _model_at(model: type[ApiModel], path: tuple[Any, ...]) -> type[ApiModel] | None:
    """The model that a path leads to, None when it leads out of the models."""
    for name in path:
        if isinstance(name, int):
            continue
        annotation = next((field.annotation for field in model.model_fields.values() if field.alias == name), None)
        inner = next(_models_in(annotation), None)
        if inner is None:
            return None
        model = inner
    return model


def _models_in(annotation: Any) -> Iterator[type[ApiModel]]:
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
