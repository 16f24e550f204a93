"""Frames between supervisor and children: any messages, cut anywhere, come out as they went in."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagemill_worker.work import frames

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
messages = st.dictionaries(st.text(), values, max_size=4)


@given(sent=st.lists(messages, max_size=5), cuts=st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_frames_cut_anywhere_come_out_whole(sent: list[dict[str, Any]], cuts: list[int]) -> None:
    stream = b"".join(map(frames.encode, sent))
    decoder, got, at = frames.Decoder(), [], 0
    while at < len(stream):
        step = cuts[at % len(cuts)]
        got += list(decoder.feed(stream[at : at + step]))
        at += step
    assert got == sent


@given(sent=st.lists(messages, max_size=5))
def test_frames_read_from_a_stream_end_with_none(sent: list[dict[str, Any]]) -> None:
    stream = io.BytesIO(b"".join(map(frames.encode, sent)))
    assert [frames.read(stream) for _ in sent] == sent
    assert frames.read(stream) is None


def test_frames_stream_that_ends_early_is_an_end() -> None:
    whole = frames.encode({"item": "x" * 100})
    for size in (0, 2, 4, 50, len(whole) - 1):
        assert frames.read(io.BytesIO(whole[:size])) is None
        assert list(frames.Decoder().feed(whole[:size])) == []


def test_frames_of_a_stranger_are_refused_without_reading_on() -> None:
    with pytest.raises(ValueError, match="a frame of"):
        list(frames.Decoder().feed(b"Traceback (most recent call last):\n"))


def test_frames_that_are_no_object_are_refused() -> None:
    body = json.dumps([1, 2]).encode()
    with pytest.raises(ValueError, match="no object"):
        list(frames.Decoder().feed(struct.pack("<II", len(body), 0) + body))


def test_frames_hold_no_numbers_that_json_cannot_say() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        frames.encode({"confidence": float("nan")})


def test_frames_carry_bytes_beside_their_message() -> None:
    stream = frames.encode({"end": 1}, b"\x00\xff" * 5) + frames.encode({"end": 2})
    first, second = frames.Decoder().feed(stream)
    assert first == {"end": 1, frames.DATA: b"\x00\xff" * 5}
    assert second == {"end": 2}
    assert frames.read(io.BytesIO(stream)) == first
