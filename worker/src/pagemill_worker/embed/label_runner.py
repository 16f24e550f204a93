"""Classifying books in a child process, from rows that an EmbeddingJob has finished.

Layer: `worker.embed`, beside `runner`.
"""

from __future__ import annotations

import io
import pickle
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pagemill_core.errors import ItemError, RowUnusable
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_worker.embed.classify.classifier import BookRows, Classifier
from pagemill_worker.embed.classify.labels import SIDE
from pagemill_worker.embed.rows import pack
from pagemill_worker.embed.setup import EmbedSetup
from pagemill_worker.environment import source_fetcher
from pagemill_worker.items import ItemFailure, PlannedItem
from pagemill_worker.work.runner import Prepared, Processed

MAX_TENSOR_BYTES = 4 << 30  # a million pages of 1,024 numbers


class LabelRunner:
    """Reads a book's two tensors and gives its pages' probabilities."""

    batch_size = 1
    threads = 1

    def __init__(self, setup: EmbedSetup, classifier: Classifier) -> None:
        self._classifier = classifier
        self._fetcher = source_fetcher(S3Settings.model_validate(setup.s3), setup.allowed_hosts)

    def prepare(self, item: PlannedItem) -> Prepared:
        started = time.perf_counter()
        visual, text = (self._rows(item, side) for side in ("visual", "text"))
        book = BookRows(item.id, visual, text)
        seconds = {"fetch": time.perf_counter() - started}
        return Prepared(item, book, visual.nbytes + text.nbytes, item.version, seconds)

    def process(self, batch: Sequence[Prepared]) -> Sequence[Processed]:
        return [self._classify(prepared.value) for prepared in batch]

    def close(self) -> None:
        """Nothing is held but the model, which ends with the process."""

    def _rows(self, item: PlannedItem, side: str) -> NDArray[Any]:
        uri, version = str(item.input[side]), item.input.get(f"{side}Version")
        expected = str(version) if version and item.version is not None else None
        fetched = self._fetcher.fetch(uri, expected_version=expected, max_bytes=MAX_TENSOR_BYTES)
        try:
            tensor: object = torch.load(io.BytesIO(fetched.data), map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError) as error:
            raise RowUnusable(f"{uri} is no tensor of rows") from error
        if not isinstance(tensor, torch.Tensor) or tensor.ndim != 2:
            raise RowUnusable(f"{uri} is no tensor of rows")
        rows: NDArray[Any] = tensor.to(torch.float32).numpy()
        return rows

    def _classify(self, book: BookRows) -> Processed:
        started = time.perf_counter()
        try:
            found = labels_of(self._classifier, book)
        except ItemError as error:
            return Processed("failed", failure=ItemFailure.of(error))
        rows, data = pack({SIDE: found})
        pages = [{"name": str(page), "row": page, "status": "succeeded"} for page in range(len(found))]
        payload = {"rows": rows, "labels": list(self._classifier.labels), "pages": pages}
        return Processed("succeeded", payload, seconds={"classify": time.perf_counter() - started}, data=data)


def labels_of(classifier: Classifier, book: BookRows) -> NDArray[np.float32]:
    """Probabilities of a book's pages, float32 of shape (pages, labels). Raises: RowUnusable, EncoderFailed."""
    (found,) = classifier.classify([book])
    return found
