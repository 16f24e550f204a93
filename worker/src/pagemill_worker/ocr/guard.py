"""The adapter boundary: whatever an engine's package raises on one page becomes that page's `EngineFailed`.

Layer: `worker.ocr`. This is the only module of the worker that may catch `Exception`: an engine's packages raise
anything, and one page must not end a shard. What it may not do is hide: memory errors pass (the process is to be
given more), our own errors pass unchanged, and every other one carries a digest of its traceback, so that the same
bug on a thousand pages is seen as one.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath

from pagemill_core.errors import EngineFailed, EngineUnavailableError, ImageTooLarge, ImageTooSmall, PagemillError
from pagemill_worker.images.page import PageImage
from pagemill_worker.ocr.engine import Engine, PageText

MIN_SIDE_PX = 8  # no script can be read in fewer rows; several engines crash below
MAX_SIDE_PX = 32_766  # OpenCV's remap and Tesseract hold coordinates in 16 bits
_DIGEST_CHARS = 12
_MESSAGE_CHARS = 200  # arbitrary: one line of a report
# How the packages' own C++ says that memory ran out, instead of raising MemoryError.
_MEMORY_PHRASES = ("bad_alloc", "Failed to allocate", "Insufficient memory", "can't allocate memory", "out of memory")


class GuardedEngine:
    """An engine whose `recognise` raises only errors of Pagemill's tree, or MemoryError."""

    def __init__(self, name: str, engine: Engine) -> None:
        self._name = name
        self._engine = engine

    def recognise(self, page: PageImage) -> PageText:
        _check_size(self._name, page)
        with page_boundary(self._name):
            return self._engine.recognise(page)

    def close(self) -> None:
        self._engine.close()


@contextmanager
def page_boundary(engine: str) -> Iterator[None]:
    """Map every foreign exception inside to EngineFailed.

    Raises: EngineFailed; MemoryError, also for engines that name it otherwise; PagemillError unchanged.
    """
    try:
        yield
    except (PagemillError, MemoryError):
        raise
    except Exception as error:
        if _ran_out_of_memory(error):
            raise MemoryError(f"{engine} ran out of memory") from error
        raise EngineFailed(f"{engine} {describe(error)}") from error


@contextmanager
def load_boundary(engine: str) -> Iterator[None]:
    """Map every foreign exception while models load to EngineUnavailableError.

    Raises: EngineUnavailableError; MemoryError; PagemillError unchanged.
    """
    try:
        yield
    except (PagemillError, MemoryError):
        raise
    except Exception as error:
        if _ran_out_of_memory(error):
            raise MemoryError(f"{engine} ran out of memory while loading") from error
        raise EngineUnavailableError(f"the engine {engine} could not load: it {describe(error)}") from error


def describe(error: BaseException) -> str:
    """One line: the exception's type, its message cut short, and the digest of its traceback."""
    first_line = (str(error).strip().splitlines() or [""])[0][:_MESSAGE_CHARS]
    detail = f": {first_line}" if first_line else ""
    return f"raised {type(error).__name__}{detail} (traceback {traceback_digest(error)})"


def traceback_digest(error: BaseException) -> str:
    """12 hexadecimal digits that are equal for the same fault at the same place, whatever page it met.

    Messages, addresses and installation folders are left out; types, files, functions and lines are in.
    """
    parts: list[str] = []
    link: BaseException | None = error
    while link is not None:
        parts.append(f"{type(link).__module__}.{type(link).__qualname__}")
        parts.extend(
            f"{'/'.join(PurePath(frame.filename).parts[-2:])}:{frame.name}:{frame.lineno}"
            for frame in traceback.extract_tb(link.__traceback__)
        )
        link = link.__cause__ or link.__context__
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:_DIGEST_CHARS]


def _ran_out_of_memory(error: Exception) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or any(phrase in str(error) for phrase in _MEMORY_PHRASES)


def _check_size(engine: str, page: PageImage) -> None:
    size = f"{page.width_px} x {page.height_px} pixels"
    if min(page.width_px, page.height_px) < MIN_SIDE_PX:
        raise ImageTooSmall(f"{size}: {engine} needs at least {MIN_SIDE_PX} on each side")
    if max(page.width_px, page.height_px) > MAX_SIDE_PX:
        raise ImageTooLarge(f"{size}: {engine} reads at most {MAX_SIDE_PX} on a side")
