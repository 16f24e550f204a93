"""How many items a file makes: one for each page of a PDF or TIFF, else one.

Layer: `worker.images`; for the planner, which must not read whole files to cut them into items. `page_count` reads
through any seekable file; `BlockReader` makes one of an object that is read by ranges.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from pagemill_core.errors import ItemError
from pagemill_worker.images.directories import TiffDirectories
from pagemill_worker.images.pdf import count_pdf_pages
from pagemill_worker.images.sniff import Format, sniff

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_HEAD_BYTES = 1024
_BLOCK_BYTES = 128 * 1024
_BLOCKS_KEPT = 32  # 4 MiB
_MULTIPAGE_SUFFIXES = frozenset({".pdf", ".tif", ".tiff"})


def is_multipage(name: str) -> bool:
    """Whether a path, key or URL names a kind of file that may hold several pages; told by its suffix alone."""
    is_url = name.lower().startswith(("http://", "https://"))  # elsewhere "?" and "#" are part of the name
    path = urlsplit(name).path if is_url else name
    return PurePosixPath(path).suffix.lower() in _MULTIPAGE_SUFFIXES


def page_count(file: BinaryIO | bytes, *, origin: str) -> int:
    """Pages of a file, 1 for pictures that have no pages. Frames of animations are not pages.

    Raises: ItemError (ImageEmpty is left to the loader: an empty file is one item that fails); whatever `file` raises.
    """
    source = io.BytesIO(file) if isinstance(file, bytes) else file
    source.seek(0)
    head = source.read(_HEAD_BYTES)
    if not head:
        return 1
    try:
        kind = sniff(head)
        if kind is Format.TIFF:
            return len(TiffDirectories(source).page_numbers())
        return count_pdf_pages(source) if kind is Format.PDF else 1
    except ItemError as error:
        raise type(error)(f"{origin}: {error.message}", advice=error.advice) from error


class BlockReader(io.RawIOBase):
    """A seekable file over `read_range(start, length)`, which returns fewer bytes only at the end.

    Reads whole blocks and keeps the latest, so that a walk through small records costs few requests.
    """

    def __init__(self, read_range: Callable[[int, int], bytes], size_bytes: int) -> None:
        super().__init__()
        self._read_range = read_range
        self._size = size_bytes
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """Read `size` bytes, fewer only at the end: unlike other raw files, never short in the middle."""
        end = self._size if size < 0 else min(self._size, self._position + size)
        start, self._position = self._position, max(self._position, end)
        first, last = start // _BLOCK_BYTES, -(-end // _BLOCK_BYTES)
        joined = b"".join(self._block(number) for number in range(first, last))
        return joined[start - first * _BLOCK_BYTES : max(start, end) - first * _BLOCK_BYTES]

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill `buffer`, short only at the end: what `io.BufferedReader` calls."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        block = self._read_range(number * _BLOCK_BYTES, min(_BLOCK_BYTES, self._size - number * _BLOCK_BYTES))
        self._blocks[number] = block
        if len(self._blocks) > _BLOCKS_KEPT:
            self._blocks.popitem(last=False)
        return block
