"""Text as file formats can hold it: every view's characters go through here.

Layer: the bottom of `worker.views`; no I/O. Whatever a format cannot say is replaced by U+FFFD one for one, so that
the rest stays where it was and the loss can be seen.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from html import escape

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# XML 1.0, production 2 (Char), turned round.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LANGUAGE_TAG = re.compile("[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*")
_RIGHT_TO_LEFT = ("R", "AL")
_NUMBER = re.compile(r"[0-9\u0660-\u0669\u06f0-\u06f9]+(?:[.,:/][0-9\u0660-\u0669\u06f0-\u06f9]+)*")
_SURROGATE = re.compile("[\ud800-\udfff]")


def valid_text(text: str) -> str:
    """`text` without halves of surrogate pairs; two halves in a row become the character they stand for."""
    if text.isascii() or _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def legal_text(text: str) -> str:
    """`text` without the control characters and the like that XML forbids."""
    return _NOT_XML.sub(REPLACEMENT, valid_text(text))


def xml_text(text: str) -> str:
    """`text` escaped for element content and double-quoted attributes of XML and HTML.

    Line ends and tabs are written as character references, or a parser would turn them into spaces in attributes and a
    carriage return into a line feed anywhere.
    """
    if text.isalnum():  # most words: nothing to escape, and ten times as fast
        return text
    return escape(legal_text(text)).replace("\r", "&#13;").replace("\n", "&#10;").replace("\t", "&#9;")


def language_tag(languages: Sequence[str]) -> str:
    """The first of `languages` that is shaped like a BCP-47 tag, as attributes named `lang` demand; "" when none is."""
    return next((language for language in languages if _LANGUAGE_TAG.fullmatch(language)), "")


def visual_order(text: str) -> str:
    """One line of `text` in the order its characters stand on paper from left to right.

    A short form of Unicode's bidirectional algorithm: no embeddings, no mirrored brackets. PDF readers expect this
    order and turn it round again.
    """
    strong = [direction for direction in map(unicodedata.bidirectional, text) if direction in ("L", *_RIGHT_TO_LEFT)]
    if not any(direction in _RIGHT_TO_LEFT for direction in strong):
        return text
    base_is_left = strong[0] == "L"
    runs = _directed_runs(text, base_is_left=base_is_left)
    ordered = runs if base_is_left else runs[::-1]
    return "".join(run if is_left else _reversed(run) for run, is_left in ordered)


def _directed_runs(text: str, *, base_is_left: bool) -> list[tuple[str, bool]]:
    """Runs with whether they go left to right; neutral characters join neighbours that agree, else the base."""
    runs: list[tuple[str, bool]] = []
    neutral = ""
    for char in text:
        direction = unicodedata.bidirectional(char)
        if direction not in ("L", *_RIGHT_TO_LEFT):
            neutral += char
            continue
        is_left = direction == "L"
        if neutral:
            between = is_left if not runs or runs[-1][1] == is_left else base_is_left
            _extend(runs, neutral, base_is_left if not runs else between)
            neutral = ""
        _extend(runs, char, is_left)
    if neutral:
        _extend(runs, neutral, base_is_left)
    return runs


def _extend(runs: list[tuple[str, bool]], text: str, is_left: bool) -> None:
    if runs and runs[-1][1] == is_left:
        text = runs.pop()[0] + text
    runs.append((text, is_left))


def _reversed(run: str) -> str:
    """`run` backwards, but for numbers, which every script writes left to right."""
    return _NUMBER.sub(lambda number: number.group()[::-1], run)[::-1]
