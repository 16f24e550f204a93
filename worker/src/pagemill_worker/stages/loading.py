"""From `package.module:Class` to a stage: which classes may be named, and that they are what they should be.

Layer: `worker.stages`. Everything is found out before work starts; a child makes the same stages once more.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pagemill_core.errors import EngineUnavailableError, InvalidSpecError
from pagemill_worker.ocr.fingerprint import file_digest
from pagemill_worker.ocr.guard import load_boundary
from pagemill_worker.stages.contract import PageImage, PageText, Stage, Vector
from pagemill_worker.stages.settings import OWN_PACKAGE, StagesSettings

TYPES: Mapping[str, type] = {"PageImage": PageImage, "PageText": PageText, "Vector": Vector, "str": str}
_NEEDED = ("process", "setup", "setup_on_node", "shutdown")


def stage_class(use: str, settings: StagesSettings) -> type[Stage]:
    """The class that `use` names.

    Raises: InvalidSpecError when its package is not allowed or it is no stage; EngineUnavailableError when it cannot be
    imported.
    """
    module_name, _, class_name = use.partition(":")
    if not any(f"{module_name}.".startswith(f"{package}.") for package in settings.allowed_packages):
        raise InvalidSpecError(
            f"stages: {use} is of a package that may not be used here",
            advice=f"allowed are {', '.join(settings.allowed_packages)}; whoever runs the workers allows more: "
            "PAGEMILL_STAGES_PACKAGES",
        )
    with load_boundary(use):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise EngineUnavailableError(
                f"stages: {module_name} is not installed: {error}", advice="install or mount the package of the stage"
            ) from error
    found = getattr(module, class_name, None)
    if not inspect.isclass(found):
        raise InvalidSpecError(f"stages: {module_name} has no class {class_name}")
    _check_class(use, found)
    return cast("type[Stage]", found)


def make_stage(use: str, options: Mapping[str, str], settings: StagesSettings) -> Stage:
    """A stage with its options, not set up yet. Raises: as `stage_class`; InvalidSpecError for options it refuses."""
    made = cast(Any, stage_class(use, settings))
    try:
        inspect.signature(made).bind(**options)
    except TypeError as error:
        known = ", ".join(_option_names(made)) or "none"
        raise InvalidSpecError(f"stages: {use}: options: {error}", advice=f"its options are: {known}") from error
    try:
        return cast(Stage, made(**options))
    except (ValueError, TypeError) as error:
        raise InvalidSpecError(f"stages: {use}: options: {error}") from error


def stage_version(stage: Stage) -> str:
    """What of the class decides results: its own version, else its package's with a digest of its module."""
    kind = type(stage)
    if kind.version:
        return kind.version
    spec = importlib.util.find_spec(kind.__module__)
    source = "" if spec is None or spec.origin is None else f"sha256:{file_digest(Path(spec.origin))}"
    return " ".join(part for part in (_distribution(kind.__module__), source) if part)


def found_classes(settings: StagesSettings) -> dict[str, type[Stage]]:
    """Every stage in the top modules of the allowed packages, by what `use` would say. Raises: as `stage_class`."""
    found: dict[str, type[Stage]] = {}
    for package in settings.allowed_packages:
        for name in _modules(package):
            module = importlib.import_module(name)
            for class_name, kind in inspect.getmembers(module, inspect.isclass):
                if kind.__module__ == name and _is_stage(kind):
                    found[f"{name}:{class_name}"] = cast("type[Stage]", kind)
    return found


def _modules(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise EngineUnavailableError(
            f"{package} is not installed", advice="install it, or take it out of PAGEMILL_STAGES_PACKAGES"
        )
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = sorted(path.stem for folder in folders for path in folder.glob("*.py") if path.stem != "__init__")
    return [package, *(f"{package}.{name}" for name in files)]


def _is_stage(kind: type) -> bool:
    return (
        hasattr(kind, "takes") and hasattr(kind, "gives") and all(callable(getattr(kind, name, 0)) for name in _NEEDED)
    )


def _check_class(use: str, kind: type) -> None:
    if not _is_stage(kind):
        missing = [name for name in ("takes", "gives", *_NEEDED) if not hasattr(kind, name)]
        raise InvalidSpecError(
            f"stages: {use} is no stage: it has no {', '.join(missing)}",
            advice="subclass pagemill_worker.stages.contract.Stage",
        )
    for side in ("takes", "gives"):
        if getattr(kind, side) not in TYPES.values():
            raise InvalidSpecError(
                f"stages: {use}: `{side}` is {getattr(kind, side)!r}", advice=f"it must be one of {', '.join(TYPES)}"
            )


def _option_names(kind: Any) -> list[str]:
    return [name for name in inspect.signature(kind).parameters if name not in ("args", "kwargs")]


def _distribution(module: str) -> str:
    if module.startswith(OWN_PACKAGE):
        return ""
    names = importlib.metadata.packages_distributions().get(module.partition(".")[0], [])
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in sorted(set(names)))
