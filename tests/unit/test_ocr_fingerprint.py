"""What makes two runs' outputs comparable, and what must not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pagemill_core.errors import EngineUnavailableError
from pagemill_worker.ocr import packages
from pagemill_worker.ocr.engine import EngineSettings
from pagemill_worker.ocr.fingerprint import engine_fingerprint, file_digest
from pagemill_worker.ocr.options import EngineOptions
from pagemill_worker.ocr.rapidocr import RapidOcrAdapter


def test_file_digest_changed_file_changes_it(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"abc")
    assert file_digest(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    file.write_bytes(b"abd")
    os.utime(file, ns=(1, 2))
    assert file_digest(file) != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_file_digest_missing_file_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError, match="cannot be read: No such file"):
        file_digest(tmp_path / "gone.onnx")


def test_engine_fingerprint_holds_digests_languages_options_and_recipe(tmp_path: Path) -> None:
    model = tmp_path / "m"
    model.write_bytes(b"")
    got = engine_fingerprint("stub", 4, models={"m": model}, languages=("eng",), options=EngineOptions())
    assert got == {
        "engine": "stub",
        "recipeVersion": 4,
        "models": {"m": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        "languages": ["eng"],
        "options": {"readingOrder": "left-to-right", "minConfidence": 0.0},
    }


def test_fingerprint_patch_release_device_and_key_leave_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = RapidOcrAdapter()
    plain = adapter.fingerprint(EngineSettings("rapidocr"))
    monkeypatch.setattr(packages, "version", lambda _name: "3.10.99")
    other = EngineSettings("rapidocr", languages=("eng",), device="cpu", item_timeout_s=9, api_key="sk-secret")
    assert adapter.fingerprint(other) == plain
    assert "secret" not in json.dumps(adapter.fingerprint(other))


@pytest.mark.parametrize("change", [{"languages": ("fr",)}, {"options": {"minConfidence": 0.25}}])
def test_fingerprint_language_or_option_changes_it(change: dict[str, object]) -> None:
    adapter = RapidOcrAdapter()
    assert adapter.fingerprint(EngineSettings("rapidocr", **change)) != adapter.fingerprint(EngineSettings("rapidocr"))  # type: ignore[arg-type]
