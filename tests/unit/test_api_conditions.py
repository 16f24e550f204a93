"""Conditions and reasons: well-formed, explained, and complete for every error that can become one."""

from __future__ import annotations

import re
from enum import StrEnum

import pytest

from pagemill_core import errors
from pagemill_core.api.conditions import ConditionType, Reason


def error_classes(base: type[errors.PagemillError]) -> list[type[errors.PagemillError]]:
    return [base, *(error for below in base.__subclasses__() for error in error_classes(below))]


@pytest.mark.parametrize("words", [ConditionType, Reason])
def test_condition_words_are_camel_case_short_and_explained(words: type[StrEnum]) -> None:
    for word in words:
        assert re.fullmatch(r"[A-Z][A-Za-z]{1,62}", word.value)
        meaning = str(getattr(word, "meaning"))  # noqa: B009  the two enumerations share no typed base
        assert meaning
        assert meaning[0].islower()
        assert not meaning.endswith(".")


def test_condition_types_keep_their_order() -> None:
    want = ["Accepted", "Planned", "Progressing", "Complete", "Failed", "Suspended"]
    assert [kind.value for kind in ConditionType] == want


def test_reason_exists_for_every_error_that_ends_a_job() -> None:
    ends = [
        error
        for error in error_classes(errors.PagemillError)
        if not issubclass(error, errors.ItemError)
        and error not in (errors.PagemillError, errors.NonRetriableError, errors.RetriableError)
    ]
    missing = [error.__name__ for error in ends if error("x").reason not in list(Reason)]
    assert missing == []
