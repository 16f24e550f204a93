"""Engine packages: found without importing them, imported only by name, refused with what to install.

Layer: `worker.ocr`. Imports go through here because adapters are named like the packages they drive, and because a
missing or broken package is the same named error for all of them.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from pagemill_core.errors import EngineUnavailableError


def version(distribution: str) -> str | None:
    """The installed version of `distribution`, None when it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def package_dir(module: str) -> Path | None:
    """The folder of the top-level package `module`, found without importing it; None when it is not installed."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def is_installed(module: str) -> bool:
    """Whether the top-level `module` could be imported, as far as can be told without doing it."""
    return importlib.util.find_spec(module) is not None


def not_installed(module: str, *, engine: str, extra: str) -> EngineUnavailableError:
    """The error to raise when `engine` lacks `module`."""
    return EngineUnavailableError(
        f"the engine {engine} needs the Python package {module}, which is not installed",
        advice=f"install pagemill-worker[{extra}], or use a worker image that serves {engine}",
    )


def require(module: str, *, engine: str, extra: str) -> None:
    """Raises: EngineUnavailableError when the top-level `module` is not installed."""
    if not is_installed(module):
        raise not_installed(module, engine=engine, extra=extra)


def load(module: str, *, engine: str, extra: str) -> ModuleType:
    """Import `module`.

    Raises: EngineUnavailableError when it is missing or cannot be loaded (a shared library it links is not there).
    """
    require(module.partition(".")[0], engine=engine, extra=extra)
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise EngineUnavailableError(
            f"the engine {engine} cannot load the Python package {module}: {error}",
            advice=f"reinstall pagemill-worker[{extra}]; slim images also need libgl1 and libglib2.0-0 for paddleocr",
        ) from error


def first_fault(*checks: Callable[[], object]) -> str:
    """What the first failing check says, with its advice; empty when all pass. For `status`, which never raises."""
    for check in checks:
        try:
            check()
        except EngineUnavailableError as error:
            return f"{error.message}; {error.advice}" if error.advice else error.message
    return ""
