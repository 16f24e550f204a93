"""Seeing that a model has fallen into repeating itself, which greedy decoding does on hard pages.

Layer: `worker.ocr`, pure. An endless repetition is cut by `max_tokens`; what must not happen is that the next attempt
pays for twice as many tokens of it, or that a finished answer full of it counts as the page's text.
"""

from __future__ import annotations

from typing import Final

# Only the end is looked at: a loop never comes to an end by itself, and the cost stays flat.
_TAIL_CHARS: Final = 6000
_CUT_MIN_REPEATS: Final = 6
_CUT_MIN_CHARS: Final = 120
# A finished answer gets more doubt: long columns of equal numbers are printed on real pages.
_FINISHED_MIN_REPEATS: Final = 20
_FINISHED_MIN_UNIT_CHARS: Final = 12


def loops_at_end(text: str, *, finished: bool) -> bool:
    """Whether `text` ends in one unit repeated over and over.

    `finished` says that the model stopped by itself; then only long units with letters or digits in them count, and
    up to a quarter of the looked-at end may follow the loop (the closing of the JSON).
    """
    tail = text[-_TAIL_CHARS:]
    if not finished:
        unit, repeats = _period(tail)
        return repeats >= _CUT_MIN_REPEATS and unit * repeats >= _CUT_MIN_CHARS
    for skipped in (0, *(end for end, character in enumerate(reversed(tail), 1) if character in '}]"`\n')):
        if skipped > min(len(tail) // 4, 40):
            break
        body = tail[: len(tail) - skipped]
        unit, repeats = _period(body)
        if repeats >= _FINISHED_MIN_REPEATS and unit >= _FINISHED_MIN_UNIT_CHARS and _says_something(body[-unit:]):
            return True
    return False


def _says_something(unit: str) -> bool:
    return any(character.isalnum() for character in unit)


def _period(text: str) -> tuple[int, int]:
    """Length of the unit that the end of `text` repeats, and how many whole times; (0, 0) for none.

    The unit chosen is the one that covers most characters; the shortest of equals.
    """
    backwards = text[::-1]
    best_unit, best_repeats = 0, 0
    for unit, match_chars in enumerate(_matches_with_start(backwards)):
        if unit == 0:
            continue
        repeats = match_chars // unit + 1
        if repeats > 1 and unit * repeats > best_unit * best_repeats:
            best_unit, best_repeats = unit, repeats
    return best_unit, best_repeats


def _matches_with_start(text: str) -> list[int]:
    """For each place, how many characters from there on equal the start of `text` (the Z function, linear time)."""
    length = len(text)
    matches = [0] * length
    left = right = 0
    for place in range(1, length):
        count = min(right - place, matches[place - left]) if place < right else 0
        while place + count < length and text[count] == text[place + count]:
            count += 1
        matches[place] = count
        if place + count > right:
            left, right = place, place + count
    return matches
