"""A model folder with `config.json` and `model.py`, whose class ModelImpl does everything itself.

Layer: `worker.embed`. The folder's code runs in this process, which the job has allowed by `trust: python` and the
digest of exactly these files; nothing of it is imported before both were checked.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pagemill_core.errors import EncoderFailed, EngineUnavailableError, InvalidSpecError
from pagemill_worker.embed.batches import BatchSize, check_count
from pagemill_worker.embed.encoder import EncodedText, EncoderFacts, EncoderSettings
from pagemill_worker.embed.files import read_json
from pagemill_worker.embed.finish import check_dim, finish_rows
from pagemill_worker.embed.picture import Pixels
from pagemill_worker.embed.registry import ResolvedModel
from pagemill_worker.images.page import PageImage
from pagemill_worker.ocr.guard import page_boundary

_DEFAULT_BATCH = 16
_PROBE_PX = 224  # arbitrary: any picture tells the rows' length
_PROBE_TEXT = "a"


class _Model(Protocol):
    def load(self) -> object: ...

    def encode(self, batch: list[dict[str, Any]]) -> Any: ...


def load_model_impl_visual(
    model: ResolvedModel, settings: EncoderSettings, fingerprint: Mapping[str, object]
) -> ModelImplVisual:
    """The folder's model for pictures. Raises: InvalidSpecError, EngineUnavailableError."""
    return ModelImplVisual(_Rows(model, settings, {"image": _picture(_blank()), "text": ""}), settings, fingerprint)


def load_model_impl_text(
    model: ResolvedModel, settings: EncoderSettings, fingerprint: Mapping[str, object]
) -> ModelImplText:
    """The folder's model for texts. Raises: InvalidSpecError, EngineUnavailableError."""
    return ModelImplText(_Rows(model, settings, {"image": None, "text": _PROBE_TEXT}), settings, fingerprint)


class _Rows:
    """The loaded ModelImpl, called in batches of what it says itself."""

    def __init__(self, model: ResolvedModel, settings: EncoderSettings, probe: dict[str, Any]) -> None:
        self.name = _name(model.folder)
        self._model = _instance(model)
        self._model.load()
        warmup = getattr(self._model, "warmup", None)
        if callable(warmup):
            warmup()
        self.batch = BatchSize(settings.batch_size or _said_batch(self._model, model.folder))
        self.dim = check_dim(settings.dim, self._call([probe]).shape[1], self.name)

    def of(self, items: Sequence[dict[str, Any]]) -> NDArray[np.float32]:
        with page_boundary(self.name):
            rows = np.concatenate(self.batch.run(items, self._call))
        check_count(len(rows), len(items), self.name)
        return rows

    def _call(self, items: Sequence[dict[str, Any]]) -> NDArray[np.float32]:
        rows = np.asarray([np.asarray(row, np.float32) for row in self._model.encode(list(items))], np.float32)
        if rows.ndim != 2:
            raise EncoderFailed(f"{self.name}: encode returned {rows.shape}, not one vector an item")
        return rows


class ModelImplVisual:
    """A VisualEncoder whose model prepares pictures itself: what `prepare` gives is the whole picture."""

    def __init__(self, rows: _Rows, settings: EncoderSettings, fingerprint: Mapping[str, object]) -> None:
        self._rows, self._settings = rows, settings
        self.facts = _facts(rows, settings, fingerprint)

    def prepare(self, page: PageImage) -> Pixels:
        return page.pixels

    def encode(self, pictures: Sequence[Pixels]) -> NDArray[np.float32]:
        if not pictures:
            return np.zeros((0, self.facts.dim), self._settings.dtype)
        items = [{"image": _picture(pixels), "text": ""} for pixels in pictures]
        return finish_rows(self._rows.of(items), self._settings)

    def close(self) -> None:
        del self._rows


class ModelImplText:
    """A TextEncoder whose model counts no tokens: every text says 0."""

    def __init__(self, rows: _Rows, settings: EncoderSettings, fingerprint: Mapping[str, object]) -> None:
        if settings.on_too_long != "truncate":
            raise InvalidSpecError("onTooLong: a ModelImpl counts no tokens", advice="leave `onTooLong` out")
        self._rows, self._settings = rows, settings
        self.facts = _facts(rows, settings, fingerprint)

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[EncodedText]]:
        if not texts:
            return np.zeros((0, self.facts.dim), self._settings.dtype), []
        items = [{"image": None, "text": self._settings.prompt + text} for text in texts]
        return finish_rows(self._rows.of(items), self._settings), [EncodedText(0) for _ in texts]

    def close(self) -> None:
        del self._rows


def _facts(rows: _Rows, settings: EncoderSettings, fingerprint: Mapping[str, object]) -> EncoderFacts:
    return EncoderFacts(
        dim=rows.dim,
        batch_size=rows.batch.size,
        device=settings.device,
        precision=settings.precision,
        fingerprint=dict(fingerprint),
    )


def _picture(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels)


def _blank() -> Pixels:
    return np.zeros((_PROBE_PX, _PROBE_PX, 3), np.uint8)


def _name(folder: Path) -> str:
    name = read_json(folder / "config.json").get("name")
    if not isinstance(name, str) or not name:
        raise InvalidSpecError(f"{folder / 'config.json'} does not name the model", advice='add `"name": "…"`')
    return name


def _instance(model: ResolvedModel) -> _Model:
    """Run model.py, under a name of its own, with its folder importable as its author had it."""
    file = model.folder / "model.py"
    module_name = f"pagemill_model_{model.digest.removeprefix('sha256:')[:16]}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise EngineUnavailableError(f"{file} cannot be imported", advice="name the folder that holds model.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    if str(model.folder) not in sys.path:
        sys.path.append(str(model.folder))
    spec.loader.exec_module(module)
    made = getattr(module, "ModelImpl", None)
    if not callable(made):
        raise InvalidSpecError(f"{file} has no class ModelImpl")
    instance = made()
    lacking = [name for name in ("load", "encode") if not callable(getattr(instance, name, None))]
    if lacking:
        raise InvalidSpecError(f"{file}: ModelImpl has no {' and no '.join(lacking)}")
    found: _Model = instance
    return found


def _said_batch(model: _Model, folder: Path) -> int:
    said = getattr(model, "batch_size", None)
    value = said() if callable(said) else said
    if not isinstance(value, int):
        value = read_json(folder / "config.json").get("batch_size", _DEFAULT_BATCH)
    return value if isinstance(value, int) and value > 0 else _DEFAULT_BATCH
