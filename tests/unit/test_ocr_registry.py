"""Engine names, their options, and the environment their processes start with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pagemill_core.errors import EngineUnavailableError, InvalidSpecError
from pagemill_worker.ocr import registry
from pagemill_worker.ocr.easyocr import EasyOcrOptions
from pagemill_worker.ocr.engine import EngineSettings
from pagemill_worker.ocr.options import EngineOptions, parse_options
from pagemill_worker.ocr.paddleocr import PaddleOcrOptions
from pagemill_worker.ocr.rapidocr import RapidOcrOptions
from pagemill_worker.ocr.settings import OcrSettings
from pagemill_worker.ocr.tesseract import TesseractOptions
from pagemill_worker.ocr.threads import engine_environment

LOCAL_ENGINES = ("rapidocr", "tesseract", "paddleocr", "easyocr")


def test_names_start_with_the_default_engine_and_hold_the_presets() -> None:
    assert registry.names() == (*LOCAL_ENGINES, "vlm", "qwen", "gemma", "deepseek")


@pytest.mark.parametrize("name", LOCAL_ENGINES)
def test_adapter_of_a_local_engine_has_its_name_and_a_recipe_version(name: str) -> None:
    adapter = registry.adapter(name)
    assert (adapter.name, adapter.recipe_version) == (name, 1)


def test_adapter_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidSpecError, match="no engine 'tesserakt'; known engines: rapidocr, tesseract, paddleocr"):
        registry.adapter("tesserakt")


def test_adapter_module_left_out_of_the_build_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pagemill_worker.ocr.rapidocr", None)
    with pytest.raises(EngineUnavailableError, match="'rapidocr' is not part of this installation"):
        registry.adapter("rapidocr")


def test_adapters_named_and_described_import_no_engine_package() -> None:
    script = (
        "import sys\n"
        "from pagemill_worker.ocr import registry\n"
        f"for name in {LOCAL_ENGINES!r}: registry.adapter(name)\n"
        "heavy = {'torch', 'cv2', 'onnxruntime', 'rapidocr', 'paddleocr', 'paddlex', 'easyocr', 'tesserocr'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("model", "options", "want_message"),
    [
        (TesseractOptions, {"psn": 3}, r"engine\.options\.psn: tesseract has no such option; known options: .*psm"),
        (TesseractOptions, {"psm": 2}, r"engine\.options\.psm: "),
        (TesseractOptions, {"psm": "3"}, r"engine\.options\.psm: "),
        (RapidOcrOptions, {"minConfidence": 1.5}, r"engine\.options\.minConfidence: .*less than or equal to 1"),
        (RapidOcrOptions, {"max_side_px": 900}, r"no such option"),
        (PaddleOcrOptions, {"model": "medium"}, r"engine\.options\.model: .*'tiny' or 'small'"),
        (EasyOcrOptions, {"canvasPx": 10}, r"engine\.options\.canvasPx: "),
        (EasyOcrOptions, {"readingOrder": "upwards"}, r"engine\.options\.readingOrder: "),
    ],
)
def test_parse_options_wrong_option_is_refused_by_its_path(
    model: type[EngineOptions], options: dict[str, object], want_message: str
) -> None:
    name = model.__name__.removesuffix("Options").lower()
    with pytest.raises(InvalidSpecError, match=want_message) as caught:
        parse_options(model, EngineSettings(name, options=options))
    assert "minConfidence, " in caught.value.advice


def test_parse_options_camel_case_is_taken_over_the_default() -> None:
    options = parse_options(PaddleOcrOptions, EngineSettings("paddleocr", options={"detectorSidePx": 960}))
    assert (options.model, options.detector_side_px) == ("small", 960)


def test_engine_environment_is_one_thread_offline_and_below_the_cache() -> None:
    environment = engine_environment(OcrSettings(cache_dir=Path("/cache")))
    assert environment["OMP_NUM_THREADS"] == environment["OMP_THREAD_LIMIT"] == "1"
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"
    assert environment["PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK"] == "True"
    assert environment["PADDLE_PDX_CACHE_HOME"].startswith("/cache/")


@pytest.mark.parametrize("variable", ["PAGEMILL_OCR_TESSDATA_DIR", "TESSDATA_PREFIX"])
def test_ocr_settings_tessdata_folder_comes_from_either_variable(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TESSDATA_PREFIX", raising=False)
    monkeypatch.setenv(variable, "/data/tess")
    assert OcrSettings().tessdata_dir == Path("/data/tess")


def test_ocr_settings_every_field_is_described() -> None:
    assert all(field.description for field in OcrSettings.model_fields.values())


def test_ocr_settings_user_without_a_home_caches_in_the_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert OcrSettings().cache_dir.name == "pagemill-ocr"
