"""ONNX Runtime's devices and threads, for the two engines that run on it.

Layer: `worker.ocr`. What the installed build could use is told apart from what this machine has: a plan step without
a GPU may check a job whose work steps have one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from pagemill_core.errors import EngineUnavailableError
from pagemill_worker.ocr import gpu, packages
from pagemill_worker.ocr.engine import Device

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
# CUDA tries out convolutions anew for every new shape, and nearly every line has its own; the heuristic does not.
CUDA_OPTIONS: Mapping[str, str] = MappingProxyType({"cudnn_conv_algo_search": "HEURISTIC"})


def session_providers(*, on_gpu: bool) -> tuple[str, ...]:
    """The execution providers to make sessions with, the preferred one first."""
    return (_CUDA, _CPU) if on_gpu else (_CPU,)


def providers(*, engine: str) -> tuple[str, ...]:
    """The execution providers of the installed build. Raises: EngineUnavailableError when ONNX Runtime is missing."""
    runtime = packages.load("onnxruntime", engine=engine, extra="ocr")
    # Official builds report usage to their vendor unless told not to. The process environment stops it altogether
    # (see threads.py); this stops what can be stopped where that was not set.
    runtime.disable_telemetry_events()
    return tuple(runtime.get_available_providers())


def check_device(device: Device, *, engine: str) -> None:
    """Raises: EngineUnavailableError when a GPU is asked for and the installed build has no code for one."""
    if device == "gpu" and _CUDA not in providers(engine=engine):
        raise EngineUnavailableError(
            f"engine.device: {engine} was asked to use a GPU, but the installed onnxruntime is built for CPUs",
            advice="install onnxruntime-gpu in place of onnxruntime, or set engine.device to auto or cpu",
        )


def use_gpu(device: Device, *, engine: str, gpu_files: Sequence[Path] = gpu.DEVICE_FILES) -> bool:
    """Whether sessions are to run on a GPU of this machine. `auto` takes one when there is one.

    Raises: EngineUnavailableError when a GPU is asked for and this machine shows none.
    """
    if device == "cpu":
        return False
    check_device(device, engine=engine)
    possible = _CUDA in providers(engine=engine) and gpu.is_visible(gpu_files)
    if device == "gpu" and not possible:
        raise EngineUnavailableError(
            f"engine.device: {engine} was asked to use a GPU, but no NVIDIA device is visible here",
            advice="run on a pool with GPUs, or set engine.device to auto or cpu",
        )
    return possible


def confirm_gpu(session_providers: Sequence[str], *, engine: str) -> None:
    """Refuse a session that was to run on the GPU and silently fell back to the CPU.

    Raises: EngineUnavailableError, so that a GPU node never reads pages at a CPU's speed unseen.
    """
    if not session_providers or session_providers[0] != _CUDA:
        raise EngineUnavailableError(
            f"{engine} found a GPU, but ONNX Runtime could not use it (sessions run on {', '.join(session_providers)})",
            advice="match onnxruntime-gpu to the node's CUDA and cuDNN, or set engine.device to cpu",
        )


def providers_used(model: Path, *, engine: str) -> tuple[str, ...]:
    """The providers a session of `model` really gets when a GPU is preferred, the first in use first."""
    runtime = packages.load("onnxruntime", engine=engine, extra="ocr")
    return tuple(runtime.InferenceSession(str(model), providers=list(session_providers(on_gpu=True))).get_providers())


def devices(*, engine: str) -> tuple[str, ...]:
    """The devices this machine offers to `engine`. Raises: EngineUnavailableError when ONNX Runtime is missing."""
    return ("cpu", "gpu") if use_gpu("auto", engine=engine) else ("cpu",)
