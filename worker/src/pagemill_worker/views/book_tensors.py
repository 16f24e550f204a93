"""`<id>.pt`: one matrix as the file that `torch.load` gives back as a plain tensor, written without torch.

Layer: `worker.views`; pure. Finalize pods thereby need no torch, and equal rows give equal bytes whatever its release:
no clock and no machine is in the file. Reading one needs the default `weights_only=True` and nothing else.
Source: torch's serialization notes, "torch.save": a stored (uncompressed) ZIP archive of `data.pkl`, which rebuilds the
tensor, and `data/0`, its numbers.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROOT = "archive"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest instant that ZIP can say
_ALIGNMENT = 64  # where torch places numbers, so that a file can be mapped
_LOCAL_HEADER_BYTES = 30
_STORAGES: Mapping[str, str] = {
    "float16": "HalfStorage",
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "int64": "LongStorage",
}


def render_tensor(rows: NDArray[Any]) -> bytes:
    """The file of a matrix of shape (rows, dim), dtype float16, float32, float64 or int64.

    Raises: ValueError for any other array.
    """
    storage = _STORAGES.get(str(rows.dtype))
    if rows.ndim != 2 or storage is None:
        raise ValueError(f"{rows.dtype} of shape {rows.shape} is no matrix that a tensor file can hold")
    little = np.ascontiguousarray(rows, rows.dtype.newbyteorder("<"))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        _store(archive, "data.pkl", _pickle(storage, rows.shape[0], rows.shape[1]))
        _store(archive, "byteorder", b"little")
        _store(archive, "data/0", little.tobytes())
        _store(archive, "version", b"3\n")
    return out.getvalue()


def _store(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(f"{_ROOT}/{name}", _EPOCH)
    info.create_system = 0  # else it would say on which system the file was made
    start = archive.start_dir + _LOCAL_HEADER_BYTES + len(info.filename)
    padding = -(start + 4) % _ALIGNMENT
    info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    archive.writestr(info, data)


def _pickle(storage: str, rows: int, dim: int) -> bytes:
    """What torch itself pickles for such a tensor, protocol 2, less the memo."""
    place = b"(" + _text("storage") + _global("torch", storage) + _text("0") + _text("cpu") + _whole(rows * dim) + b"tQ"
    shape, stride = _whole(rows) + _whole(dim) + b"\x86", _whole(dim) + _whole(1) + b"\x86"
    hooks = _global("collections", "OrderedDict") + b")R"
    arguments = b"(" + place + _whole(0) + shape + stride + b"\x89" + hooks + b"t"
    return b"\x80\x02" + _global("torch._utils", "_rebuild_tensor_v2") + arguments + b"R."


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _whole(number: int) -> bytes:
    if number < 1 << 31:
        return b"J" + struct.pack("<i", number)
    digits = number.to_bytes(8, "little")
    return b"\x8a" + struct.pack("<B", len(digits)) + digits
