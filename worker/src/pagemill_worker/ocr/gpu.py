"""Whether this machine shows an NVIDIA GPU to its processes, told without loading anything that could use one.

Layer: `worker.ocr`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

DEVICE_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # the second one on Windows' Linux subsystem


def is_visible(device_files: Sequence[Path] = DEVICE_FILES) -> bool:
    """True when a driver's device file is there; whether a library can use it is known only once it has tried."""
    return any(file.exists() for file in device_files)
