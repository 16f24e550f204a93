"""The encoder of texts around any torch model: windows, batches of like length, checked rows.

Layer: `worker.embed`. Loaders give it a `TextTower`; it is what the runner sees. Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pagemill_core.errors import TextTooLong
from pagemill_worker.embed.batches import BatchSize, check_count
from pagemill_worker.embed.device import Place, batch_size, ids_tensor
from pagemill_worker.embed.encoder import EncodedText, EncoderFacts, EncoderSettings
from pagemill_worker.embed.finish import check_dim, finish_rows
from pagemill_worker.embed.quantise import quantise
from pagemill_worker.ocr.guard import page_boundary

Window = list[int]
_SAMPLES = ("a", "A page of text.", "12,5 % of 1,000 and more", "two cups of coffee on a wooden table")
# What a caller should hand over at once, in batches of the model: of so many, texts of like length are found. 768 texts
# of mixed lengths, MiniLM on one core: 56 a second handed over by 16, 125 by 128, 141 by 256.
_BATCHES_A_CALL = 16
# A batch holds at most so many tokens, padding included, so that one long text does not make its batch enormous.
_TOKENS_A_BATCH = {True: 65_536, False: 4_096}


@dataclass(slots=True)
class TextTower:
    """A model that is ready.

    `windows` cuts each text into windows of at most `max_tokens` ids, special ones included; the first window is the
    text cut short. `forward` maps ids and mask (1 = a token; None = nothing is padded), both of shape (n, tokens), to
    rows (n, dim); `module` is what it computes with. `pad_to` is the length every window is padded to, None for the
    longest of its batch.
    """

    name: str
    module: torch.nn.Module
    windows: Callable[[Sequence[str]], list[list[Window]]]
    forward: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
    max_tokens: int
    pad_id: int
    where: Place
    pad_to: int | None = None


class TorchTextEncoder:
    """A TextEncoder over one tower. A text over the length is read in windows when so asked: its row is their mean."""

    def __init__(self, tower: TextTower, settings: EncoderSettings, fingerprint: dict[str, Any], prompt: str) -> None:
        self._tower = tower
        self._settings = settings
        self._prompt = prompt
        if tower.where.precision == "int8":
            windows = [found[0] for found in tower.windows(_SAMPLES)]
            quantise(tower.module, lambda: self._forward(windows), tower.name)
        own_dim = int(self._forward(tower.windows([prompt])[0][:1]).shape[1])
        self._batch = batch_size(settings.batch_size, tower.where, self._encode_blank)
        self.facts = EncoderFacts(
            dim=check_dim(settings.dim, own_dim, tower.name),
            batch_size=self._batch.size * _BATCHES_A_CALL,
            device=str(tower.where.device),
            precision=tower.where.precision,
            max_tokens=tower.max_tokens,
            fingerprint=fingerprint,
        )

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[EncodedText]]:
        if not texts:
            return np.zeros((0, self.facts.dim), self._settings.dtype), []
        with page_boundary(self._tower.name):
            read = self._tower.windows([self._prompt + text for text in texts])
            facts = [self._check(windows) for windows in read]
            kept = [windows[: fact.windows] for windows, fact in zip(read, facts, strict=True)]
            rows = self._rows([window for windows in kept for window in windows])
        return finish_rows(_joined(rows, [len(windows) for windows in kept], self._settings), self._settings), facts

    def close(self) -> None:
        del self._tower

    def _check(self, windows: list[Window]) -> EncodedText:
        """How the text will be read. Raises: TextTooLong."""
        is_long = len(windows) > 1
        if is_long and self._settings.on_too_long == "fail":
            raise TextTooLong(
                f"the text has at least {sum(map(len, windows))} tokens, the model reads {self._tower.max_tokens}",
                advice="say `onTooLong: window` to have all of it read, or `truncate` to have its beginning",
            )
        if is_long and self._settings.on_too_long == "window":
            return EncodedText(sum(map(len, windows)), windows=len(windows))
        return EncodedText(len(windows[0]), truncated=is_long)

    def _rows(self, windows: Sequence[Window]) -> NDArray[np.float32]:
        """One row a window. The longest come first: should memory run out, it does so at once."""
        order = sorted(range(len(windows)), key=lambda at: -len(windows[at]))
        parts: list[NDArray[np.float32]] = []
        at = 0
        while at < len(order):
            width = max(1, self._tower.pad_to or len(windows[order[at]]))
            many = max(1, min(self._batch.size, _TOKENS_A_BATCH[self._tower.where.is_gpu] // width))
            parts += _within(self._batch, many).run([windows[place] for place in order[at : at + many]], self._forward)
            at += many
        sorted_rows = np.concatenate(parts)
        check_count(len(sorted_rows), len(windows), self._tower.name)
        rows = np.empty_like(sorted_rows)
        rows[order] = sorted_rows
        return rows

    def _forward(self, windows: Sequence[Window]) -> NDArray[np.float32]:
        tower = self._tower
        lengths = [len(window) for window in windows]
        width = tower.pad_to or max(lengths)
        with torch.inference_mode():
            ids = ids_tensor(windows, width, tower.pad_id, tower.where)
            # Without padding no mask is needed, and the fastest attention is taken.
            mask = None if min(lengths) == width else ids_tensor([[1] * n for n in lengths], width, 0, tower.where)
            rows: NDArray[np.float32] = tower.forward(ids, mask).float().cpu().numpy()
        return rows

    def _encode_blank(self, size: int) -> None:
        width = self._tower.pad_to or min(self._tower.max_tokens, _TOKENS_A_BATCH[True] // size)
        self._forward([[self._tower.pad_id] * width] * size)


def _within(batch: BatchSize, many: int) -> BatchSize:
    """The encoder's own batch size where it is the bound; else one for this call, whose halving says nothing of it."""
    return batch if many >= batch.size else BatchSize(many)


def _joined(rows: NDArray[np.float32], counts: Sequence[int], settings: EncoderSettings) -> NDArray[np.float32]:
    """One row a text: of several windows the mean, of rows of one length where rows are scaled."""
    if max(counts) == 1:
        return rows
    if settings.normalize:
        kept = rows[:, : settings.dim] if settings.dim else rows
        rows = kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    starts = np.cumsum([0, *counts[:-1]])
    joined: NDArray[np.float32] = np.add.reduceat(rows, starts, axis=0) / np.asarray(counts)[:, None]
    return joined.astype(np.float32)
