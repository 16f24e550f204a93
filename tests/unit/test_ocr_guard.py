"""The adapter boundary: what one page may raise, and what its message carries."""

from __future__ import annotations

import numpy as np
import pytest

from pagemill_core.errors import (
    EngineFailed,
    EngineTimeoutError,
    EngineUnavailableError,
    ImageTooLarge,
    ImageTooSmall,
    PagemillError,
    ReplyRejected,
)
from pagemill_worker.images.page import PageImage
from pagemill_worker.ocr.engine import PageText
from pagemill_worker.ocr.guard import MAX_SIDE_PX, MIN_SIDE_PX, GuardedEngine, load_boundary


class FailingEngine:
    """Raises what it is given; closes once."""

    def __init__(self, error: BaseException | None = None) -> None:
        self._error = error
        self.closed = 0

    def recognise(self, page: PageImage) -> PageText:
        if self._error is not None:
            raise self._error
        return PageText(regions=())

    def close(self) -> None:
        self.closed += 1


def make_page(width_px: int = 40, height_px: int = 40) -> PageImage:
    return PageImage(np.zeros((height_px, width_px, 3), np.uint8))


def recognise_failing(error: BaseException, page: PageImage | None = None) -> EngineFailed:
    with pytest.raises(EngineFailed) as caught:
        GuardedEngine("stub", FailingEngine(error)).recognise(page or make_page())
    return caught.value


def test_guard_foreign_exception_becomes_engine_failed_with_type_message_and_digest() -> None:
    failure = recognise_failing(ValueError("negative dimensions\nare not allowed"))
    assert failure.message.startswith("stub raised ValueError: negative dimensions (traceback ")
    assert len(failure.message.rpartition(" ")[2].rstrip(")")) == 12
    assert isinstance(failure.__cause__, ValueError)


def test_guard_same_fault_with_other_values_has_the_same_digest() -> None:
    digests = {recognise_failing(ValueError(f"page {n}")).message[-13:] for n in range(3)}
    assert len(digests) == 1


def test_guard_other_fault_has_another_digest() -> None:
    assert recognise_failing(ValueError("x")).message[-13:] != recognise_failing(TypeError("x")).message[-13:]


def test_guard_long_message_is_cut() -> None:
    assert len(recognise_failing(RuntimeError("x" * 5000)).message) < 300


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:114] . DefaultCPUAllocator: can't allocate memory: you tried …"),
        RuntimeError("std::bad_alloc"),
        ValueError("OpenCV(4.10.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 1 bytes"),
    ],
    ids=["python", "torch", "c++", "opencv"],
)
def test_guard_memory_error_in_any_dress_passes_as_memory_error(error: Exception) -> None:
    with pytest.raises(MemoryError):
        GuardedEngine("stub", FailingEngine(error)).recognise(make_page())


@pytest.mark.parametrize("error", [ReplyRejected("no text"), EngineTimeoutError("late", retry_after_s=3)])
def test_guard_error_of_ours_passes_unchanged(error: PagemillError) -> None:
    with pytest.raises(PagemillError) as caught:
        GuardedEngine("stub", FailingEngine(error)).recognise(make_page())
    assert caught.value is error


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(3)])
def test_guard_stop_of_the_process_passes(stop: BaseException) -> None:
    with pytest.raises(type(stop)):
        GuardedEngine("stub", FailingEngine(stop)).recognise(make_page())


def test_guard_tiny_page_is_too_small_before_the_engine_sees_it() -> None:
    with pytest.raises(ImageTooSmall, match="1 x 500 pixels: stub needs at least 8"):
        GuardedEngine("stub", FailingEngine(ValueError())).recognise(make_page(1, 500))


def test_guard_page_longer_than_engines_can_address_is_too_large() -> None:
    with pytest.raises(ImageTooLarge, match="at most 32766"):
        GuardedEngine("stub", FailingEngine(ValueError())).recognise(make_page(MAX_SIDE_PX + 1, MIN_SIDE_PX))


def test_guard_healthy_engine_answers_and_closes() -> None:
    engine = FailingEngine()
    guarded = GuardedEngine("stub", engine)
    assert guarded.recognise(make_page()) == PageText(regions=())
    guarded.close()
    assert engine.closed == 1


def test_load_boundary_foreign_exception_becomes_unavailable() -> None:
    with (
        pytest.raises(EngineUnavailableError, match=r"stub could not load: it raised OSError: .* \(traceback "),
        load_boundary("stub"),
    ):
        raise OSError("file is not a zip archive")


def test_load_boundary_memory_error_passes() -> None:
    with pytest.raises(MemoryError), load_boundary("stub"):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
