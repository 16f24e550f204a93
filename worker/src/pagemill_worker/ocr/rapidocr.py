"""RapidOCR: PP-OCRv6 small on ONNX Runtime; the default engine, because its models come inside its wheel.

Layer: `worker.ocr`. The recipe: one thread per session, no line classifier (it turns good lines upside down: 0.03 %
of the characters wrong without it, 6.6 % with it), recognition in batches of one (larger ones only pad on a CPU).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pagemill_core.errors import EngineUnavailableError
from pagemill_worker.images.page import PageImage
from pagemill_worker.ocr import onnx, packages
from pagemill_worker.ocr.engine import Engine, EngineAdapter, EngineSettings, EngineStatus, PageText
from pagemill_worker.ocr.fingerprint import engine_fingerprint
from pagemill_worker.ocr.guard import GuardedEngine, load_boundary
from pagemill_worker.ocr.languages import LANGUAGES, LanguageOffer, resolve_languages
from pagemill_worker.ocr.opencv import ToBgr, load_to_bgr
from pagemill_worker.ocr.options import EngineOptions, parse_options
from pagemill_worker.ocr.page_text import RawLine, page_text
from pagemill_worker.ocr.settings import OcrSettings

NAME = "rapidocr"
MAX_ASPECT = 5
_EXTRA = "ocr"
_MODEL_FILES = {"PP-OCRv6_small_det": "PP-OCRv6_det_small.onnx", "PP-OCRv6_small_rec": "PP-OCRv6_rec_small.onnx"}


class RapidOcrOptions(EngineOptions):
    """RapidOCR's options; the defaults are the package's own."""

    min_confidence: float = Field(default=0.5, ge=0.0, le=1.0, description="Lines of lower confidence are left out.")
    box_threshold: float = Field(
        default=0.5, ge=0.0, le=1.0, description="Mean score above which the detector calls a blob a line."
    )
    max_side_px: int = Field(
        default=2000, ge=64, le=8000, description="Pages with a longer side are scaled down to this before detection."
    )
    detector_side_px: int | None = Field(
        default=None,
        ge=320,
        le=4096,
        description="The detector sees the page scaled down to this longer side; unset: the package's rule, which "
        "scales small pages up. 1280 saves a fifth of the time on pages with large print.",
    )


class _Output(Protocol):
    boxes: NDArray[np.float32] | None
    txts: tuple[str, ...] | None
    scores: tuple[float, ...] | None


class _RapidOcr(Protocol):
    def __call__(self, img_content: NDArray[np.uint8]) -> _Output: ...


class RapidOcrEngine:
    """The package's pipeline in this process."""

    def __init__(self, pipeline: _RapidOcr, to_bgr: ToBgr, options: RapidOcrOptions) -> None:
        self._pipeline: _RapidOcr | None = pipeline
        self._to_bgr = to_bgr
        self._options = options

    def recognise(self, page: PageImage) -> PageText:
        if self._pipeline is None:
            raise ValueError("the engine is closed")
        output = self._pipeline(self._to_bgr(within_aspect(page.pixels)))
        if output.boxes is None or output.txts is None or output.scores is None:
            return PageText(regions=())
        rows = zip(output.txts, output.scores, output.boxes.tolist(), strict=True)
        return page_text([RawLine(text, score, box) for text, score, box in rows], page, self._options)

    def close(self) -> None:
        self._pipeline = None


def within_aspect(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`pixels` with white added at the right or the bottom until no side is more than MAX_ASPECT times the other.

    The package scales the shorter side up to 736 pixels for its detector: a strip of 8 x 500 would become 736 x 46000,
    over a minute and gigabytes for an empty page.
    """
    height, width = pixels.shape[:2]
    shortest = -(-max(height, width) // MAX_ASPECT)
    padding = ((0, max(0, shortest - height)), (0, max(0, shortest - width)), (0, 0))
    if padding[0][1] or padding[1][1]:
        return np.pad(pixels, padding, constant_values=255)
    return pixels


class RapidOcrAdapter:
    """See the contract in `engine.py`."""

    name = NAME
    recipe_version = 1

    def check(self, settings: EngineSettings) -> None:
        parse_options(RapidOcrOptions, settings)
        for requirement in _REQUIREMENTS:
            requirement()
        resolve_languages(settings.languages, _offer())
        onnx.check_device(settings.device, engine=NAME)

    def fingerprint(self, settings: EngineSettings) -> dict[str, Any]:
        return engine_fingerprint(
            NAME,
            self.recipe_version,
            models=_models(),
            languages=resolve_languages(settings.languages, _offer()),
            options=parse_options(RapidOcrOptions, settings),
        )

    def load(self, settings: EngineSettings) -> Engine:
        self.check(settings)
        options = parse_options(RapidOcrOptions, settings)
        with load_boundary(NAME):
            package = packages.load("rapidocr", engine=NAME, extra=_EXTRA)
            to_bgr = load_to_bgr(engine=NAME, extra=_EXTRA)
            gpu = onnx.use_gpu(settings.device, engine=NAME)
            pipeline = package.RapidOCR(params=_parameters(options, gpu=gpu))
            # Sessions are made on first use; make them now, so that a fault is a load's fault. The detector only makes
            # its session: on a picture, however small, it would take as long as on half a page.
            pipeline._load_det_model()
            pipeline.recognize_txt([np.full((48, 320, 3), 255, np.uint8)])
            if gpu:
                onnx.confirm_gpu(pipeline.text_rec.session.session.get_providers(), engine=NAME)
        return GuardedEngine(NAME, RapidOcrEngine(cast(_RapidOcr, pipeline), to_bgr, options))

    def status(self) -> EngineStatus:
        missing = packages.first_fault(*_REQUIREMENTS)
        return EngineStatus(
            name=NAME,
            ready=not missing,
            version=packages.version("rapidocr"),
            languages=() if missing else _offer().available(),
            models=() if missing else tuple(_MODEL_FILES),
            devices=() if missing else onnx.devices(engine=NAME),
            missing=missing,
        )


def _models() -> dict[str, Path]:
    """The detector's and the recogniser's file inside the installed package. Raises: EngineUnavailableError."""
    folder = packages.package_dir("rapidocr")
    if folder is None:
        raise packages.not_installed("rapidocr", engine=NAME, extra=_EXTRA)
    models = {name: folder / "models" / file for name, file in _MODEL_FILES.items()}
    absent = [file.name for file in models.values() if not file.is_file()]
    if absent:
        raise EngineUnavailableError(
            f"the installed rapidocr lacks its models {', '.join(absent)}",
            advice="reinstall rapidocr from its wheel, which holds them",
        )
    return models


_REQUIREMENTS = (
    lambda: packages.require("rapidocr", engine=NAME, extra=_EXTRA),
    lambda: onnx.providers(engine=NAME),
    _models,
)


def _offer() -> LanguageOffer:
    codes = {tag: language.paddle for tag, language in LANGUAGES.items() if language.paddle is not None}
    return LanguageOffer(engine=NAME, codes=codes, present=frozenset(codes.values()), advice=lambda _code: "")


def _parameters(options: RapidOcrOptions, *, gpu: bool) -> dict[str, Any]:
    models = _models()
    detector = {} if options.detector_side_px is None else _detector_limit(options.detector_side_px)
    return {
        **detector,
        "Global.log_level": "error",
        "Global.use_cls": False,
        "Global.text_score": options.min_confidence,
        "Global.max_side_len": options.max_side_px,
        "Det.box_thresh": options.box_threshold,
        # Named by path: a model that is looked up by its name may be downloaded.
        "Det.model_path": str(models["PP-OCRv6_small_det"]),
        "Rec.model_path": str(models["PP-OCRv6_small_rec"]),
        "Rec.rec_batch_num": 1,
        "EngineConfig.onnxruntime.intra_op_num_threads": 1,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        "EngineConfig.onnxruntime.use_cuda": gpu,
        **{f"EngineConfig.onnxruntime.cuda_ep_cfg.{key}": value for key, value in onnx.CUDA_OPTIONS.items()},
    }


def _detector_limit(side_px: int) -> dict[str, Any]:
    return {"Det.limit_type": "max", "Det.limit_side_len": side_px}


def make_adapter(_name: str, _paths: OcrSettings) -> EngineAdapter:
    """The adapter, by the name the registry knows it."""
    return RapidOcrAdapter()
