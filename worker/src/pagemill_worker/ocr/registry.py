"""Which engines there are, by the name a job uses, without importing any of them.

Layer: `worker.ocr`. Adapters are named by import path, so that asking for one engine never loads another, and a
worker image may leave out the packages of those it does not serve.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast

from pagemill_core.errors import EngineUnavailableError, InvalidSpecError
from pagemill_worker.ocr.engine import EngineAdapter
from pagemill_worker.ocr.settings import OcrSettings

AdapterFactory = Callable[[str, OcrSettings], EngineAdapter]

_VLM = "pagemill_worker.ocr.vlm:make_adapter"
# The factory gets the name it was asked by, so one module may serve several presets.
_FACTORIES: Mapping[str, str] = MappingProxyType(
    {
        "rapidocr": "pagemill_worker.ocr.rapidocr:make_adapter",
        "tesseract": "pagemill_worker.ocr.tesseract:make_adapter",
        "paddleocr": "pagemill_worker.ocr.paddleocr:make_adapter",
        "easyocr": "pagemill_worker.ocr.easyocr:make_adapter",
        "vlm": _VLM,
        "qwen": _VLM,
        "gemma": _VLM,
        "deepseek": _VLM,
    }
)


def names() -> tuple[str, ...]:
    """Every engine name a job may use, the default engine first."""
    return tuple(_FACTORIES)


def adapter(name: str, paths: OcrSettings | None = None) -> EngineAdapter:
    """The adapter of the engine `name`; cheap, imports that adapter's module and no engine package.

    Raises: InvalidSpecError for a name that no engine has; EngineUnavailableError when this build lacks the module.
    """
    path = _FACTORIES.get(name)
    if path is None:
        raise InvalidSpecError(
            f"engine.name: there is no engine {name!r}; known engines: {', '.join(_FACTORIES)}",
            advice="name one of the known engines",
        )
    module_name, _, factory_name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise EngineUnavailableError(f"the engine {name!r} is not part of this installation: {error}") from error
    factory = cast(AdapterFactory, getattr(module, factory_name))
    return factory(name, OcrSettings() if paths is None else paths)
