"""The OCR half of a child process: a page's bytes to pixels, pixels to text.

Layer: `worker.ocr`, below `worker.work`, which starts it by name. Loads exactly one engine.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pagemill_core.errors import ItemError
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_worker.environment import reveal, source_fetcher
from pagemill_worker.fetch.fetched import Fetched, shown_uri
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.images.load import load_page
from pagemill_worker.images.page import PageImage
from pagemill_worker.items import ItemFailure, PlannedItem
from pagemill_worker.ocr.engine import Engine, EngineSettings, MeteredEngine
from pagemill_worker.ocr.registry import adapter
from pagemill_worker.views.row import OcrRow, to_payload
from pagemill_worker.work.runner import Prepared, Processed

RUNNER = "pagemill_worker.ocr.runner:make_runner"


class OcrSetup(BaseModel):
    """The first message to a child; holds secrets, so it travels through a pipe only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: dict[str, Any]
    limits: dict[str, int]
    s3: dict[str, Any] = Field(repr=False)
    allowed_hosts: tuple[str, ...] = ()
    threads: int = 1
    kind: Literal["ocr"] = "ocr"


@dataclass(frozen=True, slots=True)
class _Page:
    image: PageImage


def setup_message(
    engine: EngineSettings, limits: ImageLimits, s3: S3Settings, allowed_hosts: tuple[str, ...], threads: int
) -> dict[str, Any]:
    """The set-up message that makes a child an OCR runner."""
    setup = OcrSetup(
        engine=asdict(engine),
        limits=asdict(limits),
        s3=reveal(s3),
        allowed_hosts=allowed_hosts,
        threads=threads,
    )
    return {"runner": RUNNER, "settings": setup.model_dump(mode="json")}


def make_runner(settings: Mapping[str, Any]) -> OcrRunner:
    """Load the engine that a set-up message names."""
    return OcrRunner(OcrSetup.model_validate(settings))


class OcrRunner:
    """Reads pages with one engine; makes the fetcher and the loader's limits from the set-up."""

    batch_size = 1

    def __init__(self, setup: OcrSetup) -> None:
        settings = EngineSettings(**{**setup.engine, "languages": tuple(setup.engine["languages"])})
        loader = adapter(settings.name)
        self.threads = setup.threads
        self._settings = settings
        self._version = loader.status().version or ""
        self._fetcher = source_fetcher(S3Settings.model_validate(setup.s3), setup.allowed_hosts)
        self._limits = ImageLimits(**setup.limits)
        self._engine: Engine = loader.load(settings)
        self._spending = threading.Lock()
        self._spent = 0.0

    def prepare(self, item: PlannedItem) -> Prepared:
        started = time.perf_counter()
        fetched = self._fetch(item)
        between = time.perf_counter()
        if fetched is None:
            return Prepared(item, None, 0, item.earlier_version, {"fetch": between - started})
        image = load_page(fetched.data, page=item.page, limits=self._limits, origin=shown_uri(item.uri))
        seconds = {"fetch": between - started, "decode": time.perf_counter() - between}
        return Prepared(item, _Page(image), len(fetched.data), fetched.version, seconds)

    def process(self, batch: Sequence[Prepared]) -> Sequence[Processed]:
        return [self._read(prepared) if prepared.value else Processed("skipped") for prepared in batch]

    def _fetch(self, item: PlannedItem) -> Fetched | None:
        """The item's bytes, None when it is still what an earlier run has read."""
        limit = self._limits.max_bytes
        if item.version is None and item.earlier_version is not None:
            return self._fetcher.fetch_if_changed(item.uri, earlier_version=item.earlier_version, max_bytes=limit)
        return self._fetcher.fetch(item.uri, expected_version=item.version, max_bytes=limit)

    def close(self) -> None:
        self._engine.close()

    def _read(self, prepared: Prepared) -> Processed:
        image: PageImage = prepared.value.image
        started = time.perf_counter()
        try:
            page = self._engine.recognise(image)
        except ItemError as error:
            return Processed("failed", failure=ItemFailure.of(error), api_cost=self._newly_spent())
        seconds = {"recognise": time.perf_counter() - started}
        row = OcrRow(
            id=prepared.item.id,
            source_uri=shown_uri(prepared.item.uri),
            status="succeeded",
            engine_name=self._settings.name,
            engine_version=self._version,
            finished_at=dt.datetime.now(dt.UTC),
            regions=page.regions,
            width_px=image.width_px,
            height_px=image.height_px,
            dpi=image.dpi,
            languages=self._settings.languages,
            confidence_is_default=page.confidence_is_default,
            usage=page.usage,
            metadata=page.metadata,
            page=prepared.item.page,
            frames=image.frames,
            seconds={name: round(value, 4) for name, value in {**prepared.seconds, **seconds}.items()},
        )
        return Processed("succeeded", payload=to_payload(row), seconds=seconds, api_cost=self._newly_spent())

    def _newly_spent(self) -> float:
        """What a paying engine has spent since the last answer: failed pages are paid for too."""
        if not isinstance(self._engine, MeteredEngine):
            return 0.0
        with self._spending:
            total = self._engine.spent.cost_usd or 0.0
            new, self._spent = total - self._spent, total
            return new
