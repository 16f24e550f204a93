"""OpenCV for the two engines that expect its channel order.

Layer: `worker.ocr`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pagemill_worker.ocr import packages

ToBgr = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def load_to_bgr(*, engine: str, extra: str) -> ToBgr:
    """The function from RGB to a contiguous BGR copy, OpenCV held to one thread.

    Ten times faster than a reversed numpy view made contiguous: 2 ms for a page, not 20.

    Raises: EngineUnavailableError when OpenCV is missing or cannot be loaded.
    """
    cv2 = packages.load("cv2", engine=engine, extra=extra)
    cv2.setNumThreads(1)
    return functools.partial(cv2.cvtColor, code=cv2.COLOR_RGB2BGR)
