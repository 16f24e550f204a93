"""Encoders that cost nothing: a row follows from its file's content, read in the supervisor's own process.

Layer: `worker.testing`. The embedding half of `instant`: everything but the models and their processes is real.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from pagemill_core.errors import BookEmpty, ItemError
from pagemill_worker.embed.encoder import EncoderSettings
from pagemill_worker.embed.infer.setup import RUNNER as INFERENCE_RUNNER
from pagemill_worker.embed.rows import pack
from pagemill_worker.embed.setup import RUNNER
from pagemill_worker.fetch.local import LocalFetcher
from pagemill_worker.items import ItemFailure, ItemResult, PlannedItem
from pagemill_worker.testing.instant import MAX_BYTES, read_file
from pagemill_worker.testing.instant_inference import infer_rows
from pagemill_worker.work.pool import Answer, PoolSettings

DIMS: Mapping[str, int] = {"visual": 6, "text": 4}
BAD_PAGE = b"bad"


def instant_fingerprint(settings: EncoderSettings) -> dict[str, Any]:
    """What decides the rows of an instant encoder."""
    return {
        "model": settings.model.name,
        "side": settings.side,
        "normalize": settings.normalize,
        "precision": "float32",
    }


def reader_of(settings: PoolSettings) -> Callable[[PlannedItem], Answer]:
    """What an instant pool does with an item of the kind of job that `settings` are for."""
    runner = settings.setup.get("runner")
    if runner == INFERENCE_RUNNER:
        return infer_rows
    if runner != RUNNER:
        return read_file
    return encode_book if settings.setup["settings"]["is_books"] else encode_file


def encode_file(item: PlannedItem) -> Answer:
    """One visual row, from the file's bytes."""
    try:
        fetched = LocalFetcher().fetch(item.uri, expected_version=item.version, max_bytes=MAX_BYTES)
    except ItemError as error:
        return Answer(ItemResult(item, "failed", failure=ItemFailure.of(error)))
    facts, data = pack({"visual": _row(fetched.data, "visual")})
    payload = {"rows": facts, "width": 10, "height": 10}
    return Answer(ItemResult(item, "succeeded", payload, version_read=fetched.version, data=data))


def encode_book(item: PlannedItem) -> Answer:
    """Both rows of each page of a folder; pages whose content is BAD_PAGE are dropped."""
    found = sorted(Path(item.uri).glob("*.png"))
    pages: list[dict[str, Any]] = []
    rows: dict[str, list[Any]] = {side: [] for side in DIMS}
    for path in found:
        content = path.read_bytes()
        if content == BAD_PAGE:
            failure = {"errorClass": "ImageTruncated", "errorMessage": f"{path.name} is cut"}
            pages.append({"name": path.name, "row": None, "status": "failed", **failure})
            continue
        pages.append({"name": path.name, "row": len(rows["text"]), "status": "succeeded", "ocr": "missing"})
        for side, held in rows.items():
            held.append(_row(content, side))
    if not rows["text"]:
        failure_of_book = ItemFailure.of(BookEmpty(f"{item.uri} holds no page"))
        return Answer(ItemResult(item, "failed", failure=failure_of_book))
    facts, data = pack({side: np.concatenate(held) for side, held in rows.items()})
    return Answer(ItemResult(item, "succeeded", {"rows": facts, "pages": pages}, version_read=item.version, data=data))


def _row(content: bytes, side: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    seed = int.from_bytes(sha256(side.encode() + content).digest()[:8], "big")
    row = np.random.default_rng(seed).standard_normal((1, DIMS[side]))
    return np.asarray(row / np.linalg.norm(row), np.float32)
