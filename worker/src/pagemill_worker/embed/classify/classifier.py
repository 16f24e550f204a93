"""A loaded page classifier: books of rows in, one row of probabilities a page out.

Layer: `worker.embed.classify`. Checkpoints are read without running code and must fit to the last weight. A book's
rows do not depend on the books beside it: what is padding is masked, and no window crosses a book's end.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pagemill_core.errors import EncoderFailed, EngineUnavailableError, InvalidSpecError, RowUnusable
from pagemill_worker.embed.classify.labels import Probabilities
from pagemill_worker.embed.classify.networks import BookBert, Cosmo
from pagemill_worker.embed.classify.settings import ClassifierConfig, ClassifierSettings, InputOrder, read_config
from pagemill_worker.embed.classify.windows import Window, merged, windows_of
from pagemill_worker.embed.infer.adapters import check_digest, load_strictly
from pagemill_worker.ocr.guard import load_boundary, page_boundary

NESTED_KEY = "model_state_dict"
# One window at a time on a CPU: it is as fast there, and rows are the same bytes whatever else a process has to do.
BATCH_WINDOWS = {"cpu": 1, "cuda": 8}
_ADVICE = "save the weights alone: torch.save(model.state_dict(), path) or safetensors"

Rows = NDArray[Any]


@dataclass(frozen=True, slots=True)
class BookRows:
    """A book's rows: visual (pages, visual dims) and text (pages, text dims), any float type, in page order."""

    book: str
    visual: Rows
    text: Rows


class Classifier:
    """Gives probabilities of the labels for every page of a book."""

    def __init__(
        self, model: nn.Module, config: ClassifierConfig, settings: ClassifierSettings, batch_windows: int = 0
    ) -> None:
        self.config = config
        self._batch_windows = batch_windows or BATCH_WINDOWS[settings.device]
        self.labels = config.labels
        self._name = settings.checkpoint.name
        self._device = settings.device
        self._order: InputOrder = "visualText" if settings.model == "cosmo" else settings.input_order
        self._overlap = settings.window_overlap
        self._model = model.to(settings.device).eval()

    def classify(self, books: Sequence[BookRows]) -> list[Probabilities]:
        """Probabilities of each book: float32 of shape (pages, labels), rows of sum 1; shape (0, labels) of no pages.

        Rows of a book are the same whatever other books are given with it: on a CPU to the last bit, on a GPU, where
        windows are padded to one length, within 1e-5. Raises: RowUnusable for a book whose sides differ in length or
        width; EncoderFailed for probabilities that are not finite.
        """
        cut = [(book, windows_of(len(book.visual), self.config.max_pages, self._overlap)) for book in books]
        rows = {index: self._joined(book) for index, (book, _) in enumerate(cut)}
        todo = [(index, window) for index, (_, windows) in enumerate(cut) for window in windows]
        found = self._run([rows[index][window.start : window.stop] for index, window in todo])
        return [
            self._merge(book, windows, [row for (at, _), row in zip(todo, found, strict=True) if at == index])
            for index, (book, windows) in enumerate(cut)
        ]

    def _merge(self, book: BookRows, windows: Sequence[Window], rows: Sequence[Probabilities]) -> Probabilities:
        if not windows:
            return np.zeros((0, len(self.labels)), np.float32)
        probabilities = merged(windows, rows)
        if not np.isfinite(probabilities).all():
            raise EncoderFailed(f"{book.book}: {self._name} gave probabilities that are not finite")
        return probabilities

    def _joined(self, book: BookRows) -> Tensor:
        """A book's rows in the order the model wants: float32 of shape (pages, visual + text dims)."""
        want = (self.config.visual_feature_dim, self.config.textual_feature_dim)
        if book.visual.ndim != 2 or book.text.ndim != 2 or (book.visual.shape[1], book.text.shape[1]) != want:
            raise RowUnusable(
                f"{book.book}: rows of shapes {book.visual.shape} and {book.text.shape}, and {self._name} reads "
                f"{want[0]} visual and {want[1]} text dimensions",
                advice="name the checkpoint that was trained on rows of these models, or its sizes in classify.config",
            )
        if len(book.visual) != len(book.text):
            raise RowUnusable(f"{book.book}: {len(book.visual)} visual rows and {len(book.text)} text rows")
        halves = [torch.from_numpy(np.array(side, np.float32)) for side in (book.visual, book.text)]
        return torch.cat(halves if self._order == "visualText" else halves[::-1], dim=1)

    def _run(self, windows: Sequence[Tensor]) -> list[Probabilities]:
        """Probabilities of each window. Windows of like length go together, so that little is padding."""
        found: dict[int, Probabilities] = {}
        by_length = sorted(range(len(windows)), key=lambda index: len(windows[index]))
        for start in range(0, len(by_length), self._batch_windows):
            batch = by_length[start : start + self._batch_windows]
            rows = nn.utils.rnn.pad_sequence([windows[index] for index in batch], batch_first=True)
            lengths = torch.tensor([len(windows[index]) for index in batch])
            mask = torch.arange(rows.shape[1])[None] < lengths[:, None]
            with page_boundary(self._name), torch.inference_mode():
                logits = self._model(rows.to(self._device), mask.to(self._device))
                probabilities = logits.to(torch.float32).softmax(dim=-1).cpu().numpy()
            for place, index in enumerate(batch):
                found[index] = probabilities[place, : len(windows[index])]
        return [found[index] for index in range(len(windows))]


def load_classifier(settings: ClassifierSettings) -> Classifier:
    """Load a checkpoint strictly, on the settings' device.

    Raises: IntegrityError for another digest; InvalidSpecError for a configuration that cannot be; and
    EngineUnavailableError for a file that is no such checkpoint, naming what differs.
    """
    config = read_config(settings)
    if settings.window_overlap >= config.max_pages:
        raise InvalidSpecError(
            f"classify.windowOverlap: {settings.window_overlap} of windows of {config.max_pages} pages",
            advice="an overlap below half of the window is plenty",
        )
    if settings.model == "cosmo" and settings.input_order != "visualText":
        raise InvalidSpecError("classify.inputOrder: cosmo takes both sides by themselves; leave it out")
    torch.set_num_threads(settings.threads)
    name = settings.checkpoint.name
    try:
        data = settings.checkpoint.read_bytes()
    except OSError as error:
        raise EngineUnavailableError(f"{settings.checkpoint} cannot be read: {error.strerror}") from error
    check_digest(name, data, settings.digest)
    weights = _weights(name, data)
    with load_boundary(name):
        model: nn.Module = Cosmo(config) if settings.model == "cosmo" else BookBert(config)
    _drop_counters(weights, model)
    load_strictly(model, weights, name)
    return Classifier(model, config, settings)


def probabilities_pt(probabilities: Probabilities) -> bytes:
    """The content of `labels/<book>_probs.pt`: one plain float32 tensor of shape (pages, labels)."""
    written = io.BytesIO()
    torch.save(torch.from_numpy(np.ascontiguousarray(probabilities, np.float32)), written)
    return written.getvalue()


def _weights(name: str, data: bytes) -> dict[str, Tensor]:
    """The weights of a state_dict, bare or under `model_state_dict`, or of a safetensors file."""
    if data[8:9] == b"{":  # safetensors: eight bytes of length, then a JSON object
        import safetensors.torch

        with load_boundary(name):
            return dict(safetensors.torch.load(data))
    try:
        loaded: object = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError) as error:
        raise EngineUnavailableError(f"{name}: it holds more than weights, or is damaged", advice=_ADVICE) from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get(NESTED_KEY), Mapping):
        loaded = loaded[NESTED_KEY]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise EngineUnavailableError(f"{name}: it holds a {type(loaded).__name__}, no state_dict", advice=_ADVICE)
    weights = {str(key): value for key, value in loaded.items()}
    prefix = "module."  # of a model that was trained on several GPUs
    return (
        {key.removeprefix(prefix): value for key, value in weights.items()}
        if all(key.startswith(prefix) for key in weights)
        else weights
    )


def _drop_counters(weights: dict[str, Tensor], model: nn.Module) -> None:
    """Leave out the position numbers 0, 1, 2 … that older BERT classes saved among their weights."""
    known = model.state_dict()
    for key in [key for key in weights if key.endswith("embeddings.position_ids") and key not in known]:
        del weights[key]
