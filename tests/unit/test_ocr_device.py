"""Which device an ONNX engine runs on: as asked, or refused; never silently another."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from pagemill_core.errors import EngineUnavailableError
from pagemill_worker.ocr import onnx, packages

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.fixture
def installed_build(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    runtime = SimpleNamespace(
        get_available_providers=lambda: list(request.param), disable_telemetry_events=lambda: None
    )
    monkeypatch.setattr(packages, "load", lambda *_args, **_keywords: runtime)


@pytest.fixture
def gpu_file(tmp_path: Path) -> Path:
    file = tmp_path / "nvidiactl"
    file.touch()
    return file


@pytest.mark.parametrize("installed_build", [(CPU,)], indirect=True)
@pytest.mark.usefixtures("installed_build")
def test_device_gpu_with_a_build_for_cpus_is_refused_by_the_check() -> None:
    with pytest.raises(EngineUnavailableError, match="built for CPUs"):
        onnx.check_device("gpu", engine="rapidocr")


@pytest.mark.parametrize("installed_build", [(CUDA, CPU)], indirect=True)
@pytest.mark.usefixtures("installed_build")
def test_device_gpu_with_a_gpu_build_passes_the_check_and_is_refused_where_there_is_none(tmp_path: Path) -> None:
    onnx.check_device("gpu", engine="rapidocr")
    with pytest.raises(EngineUnavailableError, match="no NVIDIA device is visible"):
        onnx.use_gpu("gpu", engine="rapidocr", gpu_files=[tmp_path / "absent"])


@pytest.mark.parametrize(
    ("installed_build", "device", "want_gpu"),
    [((CUDA, CPU), "auto", True), ((CUDA, CPU), "gpu", True), ((CUDA, CPU), "cpu", False), ((CPU,), "auto", False)],
    indirect=["installed_build"],
)
@pytest.mark.usefixtures("installed_build")
def test_device_on_a_machine_with_a_gpu_is_used_when_the_build_can(device: str, want_gpu: bool, gpu_file: Path) -> None:
    assert onnx.use_gpu(device, engine="rapidocr", gpu_files=[gpu_file]) is want_gpu  # type: ignore[arg-type]
    assert onnx.session_providers(on_gpu=want_gpu)[-1] == CPU


def test_device_session_that_fell_back_to_the_cpu_is_refused() -> None:
    onnx.confirm_gpu([CUDA, CPU], engine="rapidocr")
    with pytest.raises(EngineUnavailableError, match="sessions run on CPUExecutionProvider"):
        onnx.confirm_gpu([CPU], engine="rapidocr")


def test_package_absent_is_refused_with_the_extra_that_brings_it() -> None:
    with pytest.raises(EngineUnavailableError, match="needs the Python package no_such_engine") as caught:
        packages.load("no_such_engine.api", engine="stub", extra="ocr")
    assert "pagemill-worker[ocr]" in caught.value.advice


def test_package_that_cannot_be_loaded_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_engine").mkdir()
    (tmp_path / "broken_engine" / "__init__.py").write_text("raise ImportError('libGL.so.1: cannot open')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineUnavailableError, match=r"cannot load .* broken_engine: libGL\.so\.1"):
        packages.load("broken_engine", engine="stub", extra="ocr")


def test_first_fault_of_a_healthy_engine_is_empty() -> None:
    assert packages.first_fault(lambda: None, lambda: 3) == ""
