"""How many rows a partition of tensors has, from what `torch.save` wrote about it: no tensor is read.

Layer: `worker.plan`; needs no torch. The description is a pickle in a zip, read with stand-ins for the few classes that
partitions are made of, so nothing in it can run. What needs more has no row count here, and is planned whole.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pagemill_worker.plan.source_bytes import Ranged, RangeFile

DESCRIPTION = "/data.pkl"
MAX_DESCRIPTION_BYTES = 16 << 20  # arbitrary; a partition of a few tensors is described in a few hundred bytes
END_BYTES = 32 << 10  # the description lies at the start of the file, the list of contents at its end: two requests

_UNREADABLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    NotImplementedError,
    RecursionError,
    OverflowError,
    MemoryError,
    OSError,
)


@dataclass(frozen=True, slots=True)
class TensorShape:
    """The shape of one tensor."""

    size: tuple[int, ...]


def partition_rows(source: Ranged) -> int | None:
    """The rows that all tensors of a partition have; None when that cannot be told without loading it."""
    shapes = partition_shapes(source)
    counts = {shape.size[0] if shape.size else -1 for shape in shapes or ()}
    return counts.pop() if len(counts) == 1 and min(counts) >= 0 else None


def partition_shapes(source: Ranged) -> list[TensorShape] | None:
    """The shapes of a partition's tensors, in its order; None when that cannot be told without loading it."""
    try:
        with zipfile.ZipFile(io.BufferedReader(RangeFile(_Ends(source)))) as archive:
            found = [info for info in archive.infolist() if info.filename.endswith(DESCRIPTION)]
            if len(found) != 1 or found[0].file_size > MAX_DESCRIPTION_BYTES:
                return None
            described = archive.read(found[0])
        return _shapes(_Described(io.BytesIO(described)).load())
    except _UNREADABLE:
        return None


def _shapes(value: object) -> list[TensorShape] | None:
    """A tensor, a tuple, a list, a dict of tensors, or a data set of them."""
    if isinstance(value, _DataSet):
        value = getattr(value, "tensors", None)
    if isinstance(value, Mapping):
        value = list(value.values())
    values = list(value) if isinstance(value, tuple | list) else [value]
    shapes = [one for one in values if isinstance(one, TensorShape)]
    return shapes if shapes and len(shapes) == len(values) else None


class _DataSet:
    """Stands for torch's TensorDataset; takes whatever state it is given."""

    tensors: object


class _Storage:
    """Stands for the bytes behind a tensor."""


def _tensor(storage: object, offset: object, size: object, *further: object) -> TensorShape:
    """Stands for what makes a tensor of a storage."""
    del storage, offset, further
    if not isinstance(size, tuple) or not all(isinstance(number, int) and number >= 0 for number in size):
        raise pickle.UnpicklingError("a tensor's size is not a row of numbers")
    return TensorShape(tuple(size))


def _parameter(tensor: object, *further: object) -> object:
    del further
    return tensor


_STAND_INS: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): tuple,
    ("torch.utils.data.dataset", "TensorDataset"): _DataSet,
}


class _Described(pickle.Unpickler):
    """Reads a description with stand-ins, and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        found = _STAND_INS.get((module, name))
        if found is not None:
            return found
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return _Storage
        raise pickle.UnpicklingError(f"{module}.{name} is not a part of partitions")

    def persistent_load(self, pid: Any) -> Any:
        del pid
        return _Storage()


class _Ends:
    """Ranged bytes whose start and end are read once."""

    def __init__(self, source: Ranged) -> None:
        self._source = source
        self.size_bytes = source.size_bytes
        self._tail_start = max(0, source.size_bytes - END_BYTES)
        self._tail = source.read(self._tail_start, END_BYTES)
        self._head = source.read(0, END_BYTES) if self._tail_start else b""

    def read(self, start: int, length: int) -> bytes:
        if start >= self._tail_start:
            at = start - self._tail_start
            return self._tail[at : at + length]
        if start + length <= len(self._head):
            return self._head[start : start + length]
        return self._source.read(start, length)
