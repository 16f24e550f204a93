"""Where the members of a tar lie, from its headers alone: 512 bytes are read here and there, the pictures never.

Layer: `worker.plan`; knows nothing of data sets. Formats: ustar, pax and GNU with long names and large sizes. A tar
that is damaged or cut ends the walk with an error after the members before that place.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pagemill_core.errors import SourceError
from pagemill_worker.plan.source_bytes import Ranged

BLOCK = 512
# Small members and the header that follows them come with one read; a picture of the usual size is jumped over.
READ_AHEAD_BYTES = 64 << 10
MAX_NAME_BYTES = 1 << 20  # arbitrary; of a pax header or a GNU long name

MAX_DIGITS = 20  # of a size; 64 bits need no more

_OCTAL = re.compile(rb"[0-7]*\Z").match
_REGULAR = frozenset({b"\x00", b"0", b"7"})
_SKIPPED = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})  # links, devices, folders, pipes
_EXTENSIONS = frozenset({b"x", b"g", b"L", b"K"})  # what they hold belongs to the next member, or to none
_ADVICE = "write the tar again; tars that are compressed as a whole cannot be read in place"


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in a tar: its bytes are `size_bytes` from `offset`."""

    name: str
    offset: int
    size_bytes: int


class TarMembers:
    """The members of one tar, walked in order. Not shared by threads."""

    def __init__(self, source: Ranged, uri: str) -> None:
        self._source = source
        self._uri = uri
        self._start = 0
        self._held = b""

    def __iter__(self) -> Iterator[Member]:
        """All regular files. Raises: SourceError where the tar is damaged or cut."""
        at = 0
        told: dict[str, str] = {}  # what the headers before say of the next member
        while True:
            header = self._header(at)
            if header is None:
                return
            kind = header[156:157]
            size = _number(header[124:136], self._uri, at)
            if kind in _EXTENSIONS:
                told |= self._extension(kind, at, size)
                at += BLOCK + _padded(size)
                continue
            if kind in _REGULAR and "size" in told:
                size = self._told_size(told["size"], at)
            if kind not in _REGULAR | _SKIPPED or any(name.startswith("GNU.sparse") for name in told):
                raise self._damaged(at, "a member of a kind that cannot be read in place")
            data_size = size if kind in _REGULAR else 0
            if at + BLOCK + data_size > self._source.size_bytes:
                raise self._damaged(at, "the tar is cut: its last member does not end")
            if kind in _REGULAR:
                yield Member(told.get("path") or _name(header), at + BLOCK, size)
            told = {}
            at += BLOCK + _padded(data_size)

    def read(self, start: int, length: int) -> bytes:
        """Bytes of the tar, with what follows them kept for the next call."""
        offset = start - self._start
        if offset < 0 or offset + length > len(self._held):
            self._held = self._source.read(start, max(length, READ_AHEAD_BYTES))
            self._start, offset = start, 0
        return self._held[offset : offset + length]

    def _header(self, at: int) -> bytes | None:
        header = self.read(at, BLOCK)
        if len(header) < BLOCK:
            raise self._damaged(at, "the tar is cut: it has no end mark")
        if header == bytes(BLOCK):
            return None
        stored = _number(header[148:156], self._uri, at)
        summed = sum(header) - sum(header[148:156]) + 8 * ord(" ")
        signed = sum(struct.unpack("148b8x356b", header)) + 8 * ord(" ")  # some old writers
        if stored not in (summed, signed):
            raise self._damaged(at, "a header's checksum is wrong")
        return header

    def _extension(self, kind: bytes, at: int, size: int) -> dict[str, str]:
        if size > MAX_NAME_BYTES:
            raise self._damaged(at, "a header for a name is too large")
        data = self.read(at + BLOCK, size)
        if len(data) < size:
            raise self._damaged(at, "the tar is cut inside a header")
        if kind == b"L":
            return {"path": _text(data.rstrip(b"\0"))}
        if kind in (b"K", b"g"):
            return {}
        try:
            return dict(_pax_records(data))
        except ValueError as error:
            raise self._damaged(at, "a pax header cannot be read") from error

    def _told_size(self, text: str, at: int) -> int:
        if not (text.isascii() and text.isdigit()) or len(text) > MAX_DIGITS:
            raise self._damaged(at, "a pax header's size is no number")
        return int(text)

    def _damaged(self, at: int, reason: str) -> SourceError:
        return SourceError(f"{self._uri}: byte {at:,}: {reason}", advice=_ADVICE)


def _pax_records(data: bytes) -> Iterator[tuple[str, str]]:
    """Records "<length> <name>=<value>\\n"."""
    at = 0
    while at < len(data):
        digits = data[at : data.index(b" ", at)]
        end = at + int(digits)
        name, separator, value = data[at + len(digits) + 1 : end - 1].partition(b"=")
        if end <= at or end > len(data) or not separator or data[end - 1 : end] != b"\n":
            raise ValueError("a pax record does not end where it says")
        yield _text(name), _text(value)
        at = end


def _number(field: bytes, uri: str, at: int) -> int:
    """A number in octal digits or, beyond 8 GB, in base 256."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip()
    if _OCTAL(digits) is None:
        raise SourceError(f"{uri}: byte {at:,}: this is no header of a tar", advice=_ADVICE)
    return int(digits or b"0", 8)


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
