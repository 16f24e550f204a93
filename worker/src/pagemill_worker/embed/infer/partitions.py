"""Partitions of tensors: what `torch.save` wrote of a tensor, a tuple, a list, a dict or a TensorDataset.

Layer: `worker.embed.infer`. Partitions are strangers' files and pickles inside: they are read with torch's
restricted unpickler and one class added to what it allows, so that reading never runs code. A partition that needs
more is refused, and there is no setting to change that.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import TensorDataset

from pagemill_core.errors import PartUnreadable

BITS_PER_BYTE = 8
_ZIP_MAGIC = b"PK\x03\x04"
_ADVICE = "save it as a tensor, a tuple or dict of tensors, or a TensorDataset, with one row an entry in each"
# What damaged or foreign bytes make torch's restricted unpickler raise.
_DAMAGED = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    struct.error,
    zipfile.BadZipFile,
)

torch.serialization.add_safe_globals([TensorDataset])


@dataclass(frozen=True, slots=True)
class Partition:
    """Tensors on the CPU whose first dimension is the row; all have the same number of rows.

    `names` are the keys of a dict, in its order; None for forms without names.
    """

    tensors: tuple[Tensor, ...]
    names: tuple[str, ...] | None = None

    @property
    def rows(self) -> int:
        """Rows of each tensor."""
        return int(self.tensors[0].shape[0])

    @property
    def bits(self) -> int:
        """Size of all values in bits."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors) * BITS_PER_BYTE

    def batch(self, start: int, stop: int) -> tuple[Tensor, ...]:
        """Rows from `start` up to `stop` of each tensor."""
        return tuple(tensor[start:stop] for tensor in self.tensors)


def read_partition(source: Path | bytes, *, rows: tuple[int, int] | None = None, where: str = "") -> Partition:
    """Read a partition, or its rows from `rows[0]` up to `rows[1]`; of a local file only those rows are read.

    Raises: PartUnreadable naming `where` for damaged files, anything but tensors, unequal rows, rows past the end.
    """
    where = where or str(source if isinstance(source, Path) else "partition")
    partition = _as_partition(_load(source, where), where)
    if rows is None:
        return partition
    start, stop = rows
    if not 0 <= start <= stop <= partition.rows:
        raise PartUnreadable(f"{where}: it has {partition.rows} rows, and rows {start} to {stop} were planned")
    return Partition(partition.batch(start, stop), partition.names)


def split_labels(partition: Partition, labels: str | None, where: str = "") -> tuple[Partition, NDArray[Any] | None]:
    """The model's inputs, and the true values as float64 of shape (rows,), or None where the job names none.

    Raises: PartUnreadable when there is no such tensor, nothing else is left, or it holds no single number a row.
    """
    if labels is None:
        return partition, None
    at = _position(partition, labels, where)
    truth = partition.tensors[at]
    if truth.numel() != partition.rows or truth.is_complex():
        raise PartUnreadable(
            f"{where}: labels {labels!r} have shape {tuple(truth.shape)}", advice="labels are one number a row"
        )
    names = partition.names and tuple(name for index, name in enumerate(partition.names) if index != at)
    inputs = tuple(tensor for index, tensor in enumerate(partition.tensors) if index != at)
    if not inputs:
        raise PartUnreadable(f"{where}: besides labels {labels!r} it has nothing to give to the model")
    return Partition(inputs, names), truth.reshape(-1).to(torch.float64).numpy().astype(np.float64, copy=False)


def _position(partition: Partition, labels: str, where: str) -> int:
    if partition.names is not None and labels in partition.names:
        return partition.names.index(labels)
    count = len(partition.tensors)
    if labels.isascii() and labels.isdigit() and int(labels) < count:
        return int(labels)
    held = ", ".join(partition.names) if partition.names is not None else f"positions 0 to {count - 1}"
    raise PartUnreadable(f"{where}: it has no labels {labels!r}", advice=f"inference.labels names one of: {held}")


def _load(source: Path | bytes, where: str) -> object:
    try:
        if isinstance(source, bytes):
            return torch.load(io.BytesIO(source), map_location="cpu", weights_only=True)
        with source.open("rb") as opened:  # the older format without a zip around it cannot be mapped
            is_zip = opened.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
        return torch.load(source, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "it is damaged"
        raise PartUnreadable(f"{where}: not read: {reason[:200]}", advice=_ADVICE) from error
    except (OSError, *_DAMAGED) as error:
        raise PartUnreadable(f"{where}: damaged, or no file of torch.save ({type(error).__name__})") from error


def _as_partition(loaded: object, where: str) -> Partition:
    names: tuple[str, ...] | None = None
    values: Sequence[object]
    if isinstance(loaded, TensorDataset):
        held = getattr(loaded, "tensors", ())  # a crafted file may leave it out
        values = held if isinstance(held, tuple) else ()
    elif isinstance(loaded, Mapping):
        names, values = tuple(str(key) for key in loaded), list(loaded.values())
    elif isinstance(loaded, (tuple, list)):
        values = loaded
    else:
        values = [loaded]
    tensors = tuple(value for value in values if isinstance(value, Tensor))
    if not tensors or len(tensors) != len(values):
        kinds = ", ".join(sorted({type(value).__name__ for value in values})) or "nothing"
        raise PartUnreadable(f"{where}: a {type(loaded).__name__} that holds {kinds}", advice=_ADVICE)
    if any(tensor.ndim == 0 or tensor.layout != torch.strided or tensor.is_quantized for tensor in tensors):
        raise PartUnreadable(f"{where}: a tensor without rows, sparse or quantised", advice=_ADVICE)
    counts = {int(tensor.shape[0]) for tensor in tensors}
    if len(counts) > 1:
        raise PartUnreadable(f"{where}: its tensors have {sorted(counts)} rows", advice=_ADVICE)
    return Partition(tuple(tensor.detach() for tensor in tensors), names)
