"""Which keys pass, on every backend, before any of them is asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagemill_core.errors import UnsafeId
from pagemill_core.storage.keys import check_key, check_meta, check_prefix, check_reading_key, shown


@pytest.mark.parametrize(
    "key", ["a", "a/b.c", ".pagemill/runs/1.json", "a b", "...", "a..b/c", "x" * 1024, "é" * 512, "a\\b"]
)
def test_key_that_every_backend_can_hold_passes(key: str) -> None:
    check_key(key)
    check_reading_key(key)
    check_prefix(key)


@pytest.mark.parametrize(
    ("key", "want_part"),
    [
        ("", "empty"),
        ("/a", "starts with"),
        ("..", "'..'"),
        ("a/../b", "'..'"),
        ("a\\..\\b", "'..'"),
        ("./a", "'.'"),
        ("a//b", "empty path segment"),
        ("a/", "empty path segment"),
        ("a\\\\b", "empty path segment"),
        ("a\x7fb", "control character"),
        ("a\x85b", "control character"),
        ("a\ud800", "surrogate"),
        ("é" * 513, "1024 bytes"),
    ],
)
def test_key_that_could_not_be_written_is_refused_with_its_reason(key: str, want_part: str) -> None:
    with pytest.raises(UnsafeId, match=want_part):
        check_key(key)


@pytest.mark.parametrize("key", ["a//b", "a/", "tab\there"])
def test_key_that_others_wrote_may_be_read(key: str) -> None:
    check_reading_key(key)


@given(st.text(max_size=60))
def test_key_that_passes_stays_below_its_root(key: str) -> None:
    try:
        check_key(key)
    except UnsafeId:
        return
    depth = 0
    for segment in key.replace("\\", "/").split("/"):
        assert segment not in ("", ".", "..")
        depth += 1
    assert depth >= 1 and not key.startswith("/") and "\0" not in key


def test_message_shows_a_long_or_strange_key_in_short_ascii() -> None:
    assert shown("日\n") == "'\\u65e5\\n'"
    assert len(shown("x" * 5000)) < 130


def test_meta_is_copied() -> None:
    given_meta = {"seq": "1"}
    kept = check_meta(given_meta)
    given_meta["seq"] = "2"

    assert kept == {"seq": "1"}
    assert check_meta(None) == {}
