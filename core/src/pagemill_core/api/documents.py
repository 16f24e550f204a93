"""YAML and JSON documents as plain values, with every field's line and a note of what kubectl would read otherwise.

Layer: `core.api`. No I/O: takes text. YAML is read as kubectl reads it (YAML 1.1 booleans included), without tags,
with a bound on depth and on what aliases expand to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from pagemill_core.errors import InvalidSpecError

FieldPath = tuple[str | int, ...]
_Event = Any  # PyYAML's events; its stubs give them no members

MAX_TEXT_CHARS = 8 * 1024 * 1024
_MAX_DEPTH = 64
_MAX_NODES = 100_000

_TRUE_WORDS = frozenset({"true", "yes", "on"})
_FALSE_WORDS = frozenset({"false", "no", "off"})
_NULL_WORDS = frozenset({"", "~", "null"})
# What YAML 1.1, and so kubectl, takes for booleans although people mean words by them: Norwegian, axes, answers.
_MISREAD_WORDS = frozenset({"yes", "no", "on", "off", "y", "n"})
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]{0,29})")
_OCTAL_OR_HEX = re.compile(r"0(o?)([0-7]{1,30})|0x([0-9a-fA-F]{1,30})")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Misread:
    """An unquoted word that kubectl reads as a boolean. `is_key`: it is a field's name, the last of `path`."""

    path: FieldPath
    word: str
    is_key: bool = False


@dataclass(slots=True)
class Document:
    """One document: its value, its first line (from 1), and what was noticed while reading."""

    value: Any
    line: int
    lines: dict[FieldPath, int] = field(default_factory=dict)
    problems: list[tuple[FieldPath, str]] = field(default_factory=list)
    misread: list[Misread] = field(default_factory=list)

    def line_of(self, path: FieldPath) -> int:
        """The line of a field, or of the nearest part around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, self.line)


def read_documents(text: str, *, origin: str, keep_word: Callable[[FieldPath], bool]) -> list[Document]:
    """Every document that is not empty. `keep_word` tells the fields where words like `no` stay words.

    Raises: InvalidSpecError when the text is neither YAML nor JSON; `origin` and the line stand in front.
    """
    if len(text) > MAX_TEXT_CHARS:
        raise InvalidSpecError(f"{origin}: is longer than {MAX_TEXT_CHARS} characters, too long for a job's file")
    text = text.removeprefix("\ufeff")
    document = _read_json(text)
    if document is not None:
        return [document]
    try:
        return list(_read_yaml(text, keep_word))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{origin}:{mark.line + 1}" if mark is not None else origin
        raise InvalidSpecError(f"{where}: is not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets ValueError through for escapes and directives with absurd numbers.
        raise InvalidSpecError(f"{origin}: is not YAML: {' '.join(str(error).split())}") from error


def _read_json(text: str) -> Document | None:
    """The only document, when the text is JSON; PyYAML stumbles over tabs and surrogate pairs that JSON allows."""
    if not text.lstrip().startswith("{"):
        return None
    doubled: list[str] = []

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in members]
        doubled.extend(name for name in dict.fromkeys(names) if names.count(name) > 1)
        return dict(members)

    try:
        value = json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        return None
    return Document(value=value, line=1, problems=[((), f"{name!r} is given twice; keep one") for name in doubled])


def _read_yaml(text: str, keep_word: Callable[[FieldPath], bool]) -> Iterator[Document]:
    events = yaml.parse(text, Loader=yaml.SafeLoader)
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            document = _Reader(events, keep_word).read()
            if document.value is not None or document.problems:
                yield document


class _Reader:
    """Builds one document out of the parser's events."""

    def __init__(self, events: Iterator[_Event], keep_word: Callable[[FieldPath], bool]) -> None:
        self._events = events
        self._keep_word = keep_word
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._node_count = 0
        self._document = Document(value=None, line=1)

    def read(self) -> Document:
        first = next(self._events)
        self._document.line = first.start_mark.line + 1
        self._document.value = self._node(first, ())
        return self._document

    def _node(self, event: _Event, path: FieldPath) -> Any:
        self._document.lines.setdefault(path, event.start_mark.line + 1)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path)
        before = self._node_count
        self._count(1, event)
        if event.tag is not None and not event.tag.startswith("tag:yaml.org,2002:str"):
            self._document.problems.append(
                (path, f"the YAML tag {event.tag} is not allowed here; write the value plainly")
            )
        value = self._untagged(event, path)
        if event.anchor:
            self._anchors[event.anchor] = (value, self._node_count - before)
        return value

    def _untagged(self, event: _Event, path: FieldPath) -> Any:
        if len(path) > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="parts lie too deep in each other", problem_mark=event.start_mark)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        return self._scalar(event, path)

    def _alias(self, event: _Event, path: FieldPath) -> Any:
        if event.anchor not in self._anchors:
            raise yaml.MarkedYAMLError(
                problem=f"*{event.anchor} stands for nothing before it", problem_mark=event.start_mark
            )
        value, node_count = self._anchors[event.anchor]
        self._count(node_count, event)
        return value

    def _count(self, node_count: int, event: _Event) -> None:
        self._node_count += node_count
        if self._node_count > _MAX_NODES:
            raise yaml.MarkedYAMLError(problem="too much for a job's file", problem_mark=event.start_mark)

    def _sequence(self, path: FieldPath) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, (*path, len(items))))
        return items

    def _mapping(self, path: FieldPath) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: list[Any] = []
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, path)
            here = (*path, key)
            # The field's line is its name's line, wherever its value starts.
            self._document.lines[here] = event.start_mark.line + 1
            value = self._node(next(self._events), here)
            if key == "<<" and event.style is None:
                merged.extend(value if isinstance(value, list) else [value])
                continue
            if key in own:
                self._document.problems.append((here, "is given twice; keep one"))
            own[key] = value
        for part in merged:
            if not isinstance(part, Mapping):
                self._document.problems.append(((*path, "<<"), "must stand for an object with fields"))
                continue
            own = {**part, **own}
        return own

    def _key(self, event: _Event, path: FieldPath) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise yaml.MarkedYAMLError(problem="a field's name must be a word", problem_mark=event.start_mark)
        key = str(event.value)
        if event.style is None and key.lower() in _MISREAD_WORDS:
            self._document.misread.append(Misread((*path, key), key, is_key=True))
        return key

    def _scalar(self, event: _Event, path: FieldPath) -> Any:
        text = str(event.value)
        if event.style is not None or event.tag is not None:
            return text
        # A lone letter is a boolean to kubectl and a word to everybody else.
        if text.lower() in _MISREAD_WORDS and (self._keep_word(path) or len(text) == 1):
            self._document.misread.append(Misread(path, text))
            return text
        return plain_scalar(text)


def plain_scalar(text: str) -> Any:
    """What an unquoted YAML 1.1 scalar means: null, boolean, integer, float, or the text itself."""
    word = text.lower()
    if word in _NULL_WORDS:
        return None
    if word in _TRUE_WORDS or word in _FALSE_WORDS:
        return word in _TRUE_WORDS
    if _INTEGER.fullmatch(text):
        return int(text.replace("_", ""))
    if match := _OCTAL_OR_HEX.fullmatch(text):
        return int(match[3], 16) if match[3] else int(match[2], 8)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
