"""What an OCR engine is to Pagemill. The contract stands here; adapters say only how they differ.

Layer: `worker.ocr`. Adapters live one a module beside this file, and each imports its package only inside `load`,
`fingerprint` and `status`, so that naming one engine never pays for another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from pagemill_worker.images.page import PageImage

Device = Literal["auto", "cpu", "gpu"]


@dataclass(frozen=True, slots=True)
class Region:
    """One piece of text on a page.

    `confidence` is 0 to 1, None when the engine gives none; not comparable between engines. `bbox` is
    (x, y, width, height) in the page's pixels, origin top left, inside the page, None when the engine gives none.
    `polygon` is four or more (x, y) points, clockwise from the top left of the text. `level` is "word" or "line".
    """

    text: str
    confidence: float | None = None
    bbox: tuple[float, float, float, float] | None = None
    polygon: tuple[tuple[float, float], ...] | None = None
    level: Literal["word", "line", "block"] = "line"
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usage:
    """What one page cost at a remote API. `cost_usd` is None where the API does not say."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    requests: int = 0
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class PageText:
    """What an engine read on one page, regions in reading order. No region at all is a valid answer."""

    regions: tuple[Region, ...]
    confidence_is_default: bool = False
    usage: Usage | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """An engine as a job asks for it. `languages` are BCP-47 or the engine's own codes, `options` the engine's own.

    `api_key` is never part of a repr, a log, a fingerprint or an exception.
    """

    name: str
    languages: tuple[str, ...] = ("en",)
    device: Device = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    item_timeout_s: float = 120.0
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """One row of `pagemill engines`. `missing` says what to install, empty when the engine is ready."""

    name: str
    ready: bool
    version: str | None
    languages: Sequence[str]
    models: Sequence[str]
    devices: Sequence[str]
    missing: str = ""


class Engine(Protocol):
    """A loaded engine in one process, used by one thread."""

    def recognise(self, page: PageImage) -> PageText:
        """Read one page.

        Deterministic: the same page gives the same regions (remote models excepted).
        Raises: ItemError for this page alone (EngineFailed maps every foreign exception, with a traceback digest);
        RetriableError when a remote side fails.
        """

    def close(self) -> None:
        """Free what the engine holds; it is not used afterwards."""


class EngineAdapter(Protocol):
    """One engine's module-level door, cheap to make and to ask."""

    name: str
    recipe_version: int

    def check(self, settings: EngineSettings) -> None:
        """Refuse what the engine cannot do, before any work starts.

        Raises: EngineUnavailableError (package, data or language missing, with what to install and what is there);
        InvalidSpecError (an unknown option, or a value out of range).
        """

    def fingerprint(self, settings: EngineSettings) -> dict[str, Any]:
        """Everything that decides the result's bytes: model digests, languages, options, recipe version; JSON-able."""

    def load(self, settings: EngineSettings) -> Engine:
        """Load models. Raises: EngineUnavailableError."""

    def status(self) -> EngineStatus:
        """What is installed and what is missing. Never raises."""


@runtime_checkable
class ConcurrentAdapter(Protocol):
    """An adapter whose engine mostly waits for a remote side, so that one process reads several pages at once."""

    def max_in_flight(self, settings: EngineSettings) -> int:
        """Pages one process reads at once; the engine is then used by that many threads."""

    def page_limit_s(self, settings: EngineSettings) -> float:
        """Seconds after which a page can only hang: longer than any waiting that the remote side asked for."""


@runtime_checkable
class MeteredEngine(Protocol):
    """An engine that pays a remote side."""

    @property
    def spent(self) -> Usage:
        """Everything paid since loading, pages that failed included."""


def max_in_flight(engine: EngineAdapter, settings: EngineSettings) -> int:
    """Pages one process reads at once: 1 unless the engine is concurrent."""
    return engine.max_in_flight(settings) if isinstance(engine, ConcurrentAdapter) else 1


def page_limit_s(engine: EngineAdapter, settings: EngineSettings) -> float:
    """Seconds after which a page's process is killed: the job's limit, unless the engine waits for a remote side."""
    return engine.page_limit_s(settings) if isinstance(engine, ConcurrentAdapter) else settings.item_timeout_s
