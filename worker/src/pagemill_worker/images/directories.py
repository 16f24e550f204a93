"""TIFF directories, read without a decoder: page lists of TIFF files, orientation in EXIF, frame count of MPO files.

Layer: `worker.images`; reads through a seekable file, so that a page list costs a few ranges of a large object.
Values are bounded by the file's own length; nothing a file claims is allocated on its word.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from pagemill_core.errors import ImageTruncated, NotAnImage

ORIENTATION = 274
MPF_IMAGE_COUNT = 0xB001
_SUBFILE_TYPE = 254
_OLD_SUBFILE_TYPE = 255
_REDUCED_OR_MASK = 0b101
_TYPE_CODES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_MAX_ENTRIES = 4096  # arbitrary; real directories have a few dozen
_MAX_DIRECTORIES = 100_000  # arbitrary; ends hostile chains


class Seekable(Protocol):
    """What reading directories needs of a file."""

    def seek(self, offset: int, whence: int = 0, /) -> int: ...

    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One tag of a directory; `inline` holds the values when they fit, else their offset."""

    type_code: int
    count: int
    inline: bytes


Directory = Mapping[int, Entry]


class TiffDirectories:
    """The directories of one TIFF structure, classic or BigTIFF, either byte order.

    Raises (from every method): ImageTruncated when the structure points past the end of the file.
    """

    def __init__(self, file: Seekable) -> None:
        """Raises: NotAnImage when the header is no TIFF header; ImageTruncated."""
        self._file = file
        self.size_bytes = file.seek(0, io.SEEK_END)
        header = self._read(0, 8)
        self._order = {b"II": "<", b"MM": ">"}.get(header[:2], "")
        if not self._order:
            raise NotAnImage("no TIFF header")
        version, first = struct.unpack(self._order + "HI", header[2:])
        self._big = version == 43
        if version not in (42, 43):
            raise NotAnImage("no TIFF header")
        self._first = self._unpack("Q", self._read(8, 8)) if self._big else first

    def all(self) -> Iterator[Directory]:
        """Every directory of the main chain, in file order. Raises: ImageTruncated, also for chains that loop."""
        offset, seen = self._first, set[int]()
        while offset:
            if offset in seen or len(seen) >= _MAX_DIRECTORIES:
                raise ImageTruncated("the list of pages runs in a circle")
            seen.add(offset)
            directory, offset = self._directory(offset)
            yield directory
        if not seen:
            raise ImageTruncated("the file names no page")

    def page_numbers(self) -> list[int]:
        """Places in `all()` that are pages: not thumbnails, pyramid levels and masks, unless there is nothing else."""
        directories = list(self.all())
        pages = [number for number, directory in enumerate(directories) if self._is_page(directory)]
        return pages or list(range(len(directories)))

    def values(self, directory: Directory, tag: int) -> tuple[int, ...]:
        """The whole numbers of `tag`; empty when it is absent or of another type. Raises: ImageTruncated."""
        entry = directory.get(tag)
        code = _TYPE_CODES.get(entry.type_code) if entry else None
        if entry is None or code is None:
            return ()
        length = entry.count * struct.calcsize("=" + code)
        raw = entry.inline[:length]
        if length > len(entry.inline):
            raw = self._read(self._unpack("Q" if self._big else "I", entry.inline), length)
        return struct.unpack(f"{self._order}{entry.count}{code}", raw)

    def first(self, directory: Directory, tag: int, default: int) -> int:
        """The first number of `tag`, or `default` when it is absent."""
        return next(iter(self.values(directory, tag)), default)

    def _is_page(self, directory: Directory) -> bool:
        if self.first(directory, _SUBFILE_TYPE, 0) & _REDUCED_OR_MASK:
            return False
        return self.first(directory, _OLD_SUBFILE_TYPE, 1) != 2

    def _directory(self, offset: int) -> tuple[Directory, int]:
        count_code, entry_code, entry_size = ("Q", "HHQ8s", 20) if self._big else ("H", "HHI4s", 12)
        head = struct.calcsize("=" + count_code)
        count = self._unpack(count_code, self._read(offset, head))
        if count > _MAX_ENTRIES:
            raise ImageTruncated("a page's directory is damaged")
        link_code = "Q" if self._big else "I"
        link_size = struct.calcsize("=" + link_code)
        raw = self._read(offset + head, count * entry_size + link_size)
        entries = {
            tag: Entry(type_code, values, inline)
            for tag, type_code, values, inline in struct.iter_unpack(self._order + entry_code, raw[:-link_size])
        }
        return entries, self._unpack(link_code, raw[-link_size:])

    def _unpack(self, code: str, raw: bytes) -> int:
        return int(struct.unpack(self._order + code, raw)[0])

    def _read(self, offset: int, length: int) -> bytes:
        if offset + length > self.size_bytes:
            raise ImageTruncated("the file points past its own end")
        self._file.seek(offset)
        raw = self._file.read(length)
        if len(raw) != length:
            raise ImageTruncated("the file ends inside its directory")
        return raw


def tag_in(blob: bytes, tag: int) -> int | None:
    """The first number of `tag` in the first directory of an EXIF or MPF `blob`; None when it cannot be read.

    Metadata never fails a picture: a damaged blob counts as none.
    """
    try:
        tiff = TiffDirectories(io.BytesIO(blob.removeprefix(b"Exif\0\0")))
        directory = next(tiff.all())
        values = tiff.values(directory, tag)
    except (ImageTruncated, NotAnImage):
        return None
    return values[0] if values else None
