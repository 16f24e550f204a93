"""PaddleOCR: the real pipeline of paddleocr and paddlex, with ONNX Runtime in place of Paddle's own.

Layer: `worker.ocr`. The recipe: no page orientation, unwarping or line classifier; the detector sees at most 1280
pixels (at full size it takes 2.6 GB for nothing); recognition in batches of one; one thread per session. PP-OCRv6
small by default, tiny on request (three to four times faster, no Japanese). Differs from the other engines in that
its model folders are prepared in a cache folder at first load.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pagemill_worker.images.page import PageImage
from pagemill_worker.ocr import onnx, packages
from pagemill_worker.ocr.engine import Engine, EngineAdapter, EngineSettings, EngineStatus, PageText
from pagemill_worker.ocr.fingerprint import engine_fingerprint
from pagemill_worker.ocr.guard import GuardedEngine, load_boundary
from pagemill_worker.ocr.languages import LANGUAGES, LanguageOffer, resolve_languages
from pagemill_worker.ocr.opencv import ToBgr, load_to_bgr
from pagemill_worker.ocr.options import EngineOptions, parse_options
from pagemill_worker.ocr.packages import first_fault
from pagemill_worker.ocr.paddle_models import PaddleModel, Version, find_model, prepare
from pagemill_worker.ocr.page_text import RawLine, page_text
from pagemill_worker.ocr.settings import OcrSettings

NAME = "paddleocr"
_EXTRA = "paddle"
_VERSIONS: tuple[Version, ...] = ("tiny", "small")
_UNREAD_BY_TINY = frozenset({"ja"})  # 65 % of the characters wrong


class PaddleOcrOptions(EngineOptions):
    """PaddleOCR's options."""

    model: Version = Field(default="small", description="PP-OCRv6 small, or tiny: faster, without Japanese.")
    detector_side_px: int = Field(
        default=1280, ge=64, le=4096, description="The detector sees the page scaled down to this longer side."
    )


class _Pipeline(Protocol):
    def predict(self, page: NDArray[np.uint8]) -> Sequence[Any]: ...
    def close(self) -> None: ...


class PaddleOcrEngine:
    """The package's pipeline in this process."""

    def __init__(self, pipeline: _Pipeline, to_bgr: ToBgr, options: PaddleOcrOptions) -> None:
        self._pipeline = pipeline
        self._to_bgr = to_bgr
        self._options = options

    def recognise(self, page: PageImage) -> PageText:
        (result,) = self._pipeline.predict(self._to_bgr(page.pixels))
        rows = zip(result["rec_texts"], result["rec_scores"], result["rec_polys"], strict=True)
        lines = [RawLine(text, float(score), polygon.tolist()) for text, score, polygon in rows]
        return page_text(lines, page, self._options)

    def close(self) -> None:
        self._pipeline.close()


class PaddleOcrAdapter:
    """See the contract in `engine.py`."""

    name = NAME
    recipe_version = 1

    def __init__(self, paths: OcrSettings) -> None:
        self._paths = paths

    def check(self, settings: EngineSettings) -> None:
        options = parse_options(PaddleOcrOptions, settings)
        _check_packages()
        self._models(options.model)
        resolve_languages(settings.languages, _offer(options.model))
        onnx.check_device(settings.device, engine=NAME)

    def fingerprint(self, settings: EngineSettings) -> dict[str, Any]:
        options = parse_options(PaddleOcrOptions, settings)
        return engine_fingerprint(
            NAME,
            self.recipe_version,
            models={name: path for model in self._models(options.model) for name, path in model.files().items()},
            languages=resolve_languages(settings.languages, _offer(options.model)),
            options=options,
        )

    def load(self, settings: EngineSettings) -> Engine:
        self.check(settings)
        options = parse_options(PaddleOcrOptions, settings)
        with load_boundary(NAME):
            detector, recogniser = self._models(options.model)
            folders = {model.name: str(prepare(model, self._paths.cache_dir)) for model in (detector, recogniser)}
            gpu = onnx.use_gpu(settings.device, engine=NAME)
            if gpu:
                onnx.confirm_gpu(onnx.providers_used(detector.weights, engine=NAME), engine=NAME)
            package = packages.load("paddleocr", engine=NAME, extra=_EXTRA)
            to_bgr = load_to_bgr(engine=NAME, extra=_EXTRA)
            logging.getLogger("paddlex").setLevel(logging.ERROR)
            pipeline = package.PaddleOCR(
                text_detection_model_name=detector.name,
                text_detection_model_dir=folders[detector.name],
                text_recognition_model_name=recogniser.name,
                text_recognition_model_dir=folders[recogniser.name],
                text_det_limit_side_len=options.detector_side_px,
                **_recipe(gpu=gpu),
            )
        return GuardedEngine(NAME, PaddleOcrEngine(cast(_Pipeline, pipeline), to_bgr, options))

    def status(self) -> EngineStatus:
        faults = {version: self._fault(version) for version in _VERSIONS}
        ready = [version for version in _VERSIONS if not faults[version]]
        return EngineStatus(
            name=NAME,
            ready=bool(ready),
            version=packages.version("paddleocr"),
            languages=_offer(ready[-1]).available() if ready else (),
            models=tuple(f"PP-OCRv6_{version}_{part}" for version in ready for part in ("det", "rec")),
            devices=onnx.devices(engine=NAME) if ready else (),
            missing="" if ready else faults["small"],
        )

    def _fault(self, version: Version) -> str:
        return first_fault(_check_packages, lambda: self._models(version))

    def _models(self, version: Version) -> tuple[PaddleModel, PaddleModel]:
        return find_model(version, "det", self._paths), find_model(version, "rec", self._paths)


def make_adapter(_name: str, paths: OcrSettings) -> EngineAdapter:
    """The adapter, by the name the registry knows it."""
    return PaddleOcrAdapter(paths)


def _check_packages() -> None:
    packages.require("paddleocr", engine=NAME, extra=_EXTRA)
    packages.require("paddlex", engine=NAME, extra=_EXTRA)
    onnx.providers(engine=NAME)


def _recipe(*, gpu: bool) -> dict[str, Any]:
    return {
        "use_doc_orientation_classify": False,
        "use_doc_unwarping": False,
        "use_textline_orientation": False,
        "text_det_limit_type": "max",
        "text_recognition_batch_size": 1,
        "engine": "onnxruntime",
        "engine_config": {
            "intra_op_num_threads": 1,
            "inter_op_num_threads": 1,
            "providers": list(onnx.session_providers(on_gpu=gpu)),
            "provider_options": [dict(onnx.CUDA_OPTIONS), {}] if gpu else [{}],
        },
        # Named, because without it Paddle is asked which devices there are; the providers above decide.
        "device": "cpu",
    }


def _offer(version: Version) -> LanguageOffer:
    unread = _UNREAD_BY_TINY if version == "tiny" else frozenset()
    codes = {
        tag: language.paddle for tag, language in LANGUAGES.items() if language.paddle is not None and tag not in unread
    }
    return LanguageOffer(
        engine=f"{NAME} ({version})", codes=codes, present=frozenset(codes.values()), advice=lambda _code: ""
    )
