"""A manifest's text as lines with exact numbers, from blocks of bytes, in constant memory.

Layer: `worker.plan`; pure. Lines end at LF, CRLF or CR and nowhere else (`str.splitlines` would also cut at U+2028).
A line before a bad byte is always delivered before the error, so that the first bad line is the one named.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator

from pagemill_core.errors import SourceError

MAX_LINE_CHARS = 1 << 20  # a manifest's line is a few hundred characters; a million is another kind of file
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_AS_UTF8 = "save the manifest as UTF-8"


def read_lines(blocks: Iterator[bytes], uri: str) -> Iterator[list[str]]:
    """Lists of lines, each line with its end; a byte order mark is dropped.

    Raises: SourceError with the line's number where the text is not UTF-8, holds a NUL, or a line is too long.
    """
    lines = _Lines(uri)
    for block in blocks:
        yield from lines.feed(block, final=False)
    yield from lines.feed(b"", final=True)


class _Lines:
    """What is known between two blocks: how many lines were delivered, and the piece of a line that is left."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._rest = ""
        self._count = 0
        self._has_bytes = False
        self._has_text = False

    def feed(self, block: bytes, *, final: bool) -> Iterator[list[str]]:
        if not self._has_bytes and block:
            self._has_bytes = True
            if block.startswith(_UTF16):
                raise SourceError(f"{self._uri}: line 1 is UTF-16, not UTF-8", advice=_AS_UTF8)
        text, problem = self._decode(block, final)
        lines = self._split(text, whole=final or bool(problem))
        tail = lines.pop() if problem and lines and not lines[-1].endswith(("\n", "\r")) else ""
        if max(map(len, lines), default=0) > MAX_LINE_CHARS or max(len(tail), len(self._rest)) > MAX_LINE_CHARS:
            yield from self._until_too_long(lines)
        if lines:
            self._count += len(lines)
            yield lines
        if problem:
            raise SourceError(f"{self._uri}: line {self._count + 1} {problem}", advice=_AS_UTF8)

    def _decode(self, block: bytes, final: bool) -> tuple[str, str]:
        """The block's text up to the first bad byte, and what is wrong there."""
        problem = ""
        try:
            text = self._decoder.decode(block, final)
        except UnicodeDecodeError as error:
            text = error.object[: error.start].decode()
            problem = f"is not UTF-8 (byte 0x{error.object[error.start]:02x})"
        nul = text.find("\0")
        if nul >= 0:
            text, problem = text[:nul], "holds a NUL byte, so this is not a text file"
        if text and not self._has_text:
            self._has_text = True
            text = text.removeprefix("\ufeff")
        return text, problem

    def _split(self, text: str, *, whole: bool) -> list[str]:
        """Lines of the rest and `text`; keeps an unfinished last one for the next block unless `whole`."""
        lines = list(io.StringIO(self._rest + text, newline=""))
        self._rest = ""
        # A CR at the end may be the first half of a CRLF.
        if lines and not whole and not lines[-1].endswith("\n"):
            self._rest = lines.pop()
        return lines

    def _until_too_long(self, lines: list[str]) -> Iterator[list[str]]:
        short = next((index for index, line in enumerate(lines) if len(line) > MAX_LINE_CHARS), len(lines))
        if short:
            yield lines[:short]
        raise SourceError(
            f"{self._uri}: line {self._count + short + 1} is longer than {MAX_LINE_CHARS:,} characters",
            advice="check that this is a CSV or JSON Lines file",
        )
