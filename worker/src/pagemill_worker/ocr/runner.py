"""The OCR half of a child process: a page's bytes to pixels, pixels to text.

Layer: `worker.ocr`, below `worker.work`, which starts it by name. Loads exactly one engine.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
from pagemill_worker.ocr.engine import Engine, EngineSettings, MeteredEngine, PageText
from pagemill_worker.ocr.pieces import joined, size_of
from pagemill_worker.ocr.registry import adapter
from pagemill_worker.stages.chain import Passed
from pagemill_worker.stages.contract import StageItem
from pagemill_worker.stages.setup import ChainSetup, load_chains
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
    stages: ChainSetup = ChainSetup()
    attempts: int = 1
    prepare_threads: int = 1
    kind: Literal["ocr"] = "ocr"

    @classmethod
    def of(
        cls, engine: EngineSettings, limits: ImageLimits, s3: S3Settings, allowed_hosts: tuple[str, ...], threads: int
    ) -> OcrSetup:
        """The set-up without stages of the job's own; they are added by `model_copy`."""
        return cls(
            engine=asdict(engine),
            limits=asdict(limits),
            s3=reveal(s3),
            allowed_hosts=allowed_hosts,
            threads=threads,
        )


@dataclass(frozen=True, slots=True)
class _Page:
    """A decoded page, and how far it came through the stages of the job's own."""

    image: PageImage
    passed: Passed


def setup_message(setup: OcrSetup) -> dict[str, Any]:
    """The set-up message that makes a child an OCR runner."""
    return {"runner": RUNNER, "settings": setup.model_dump(mode="json")}


def make_runner(settings: Mapping[str, Any]) -> OcrRunner:
    """Load the engine that a set-up message names."""
    return OcrRunner(OcrSetup.model_validate(settings))


@dataclass(frozen=True, slots=True)
class _Read:
    """The pieces that the engine was given, and what it was paid for them."""

    pieces: tuple[StageItem, ...]
    api_cost: float = 0.0


class OcrRunner:
    """Reads pages with one engine; makes the fetcher and the loader's limits from the set-up."""

    def __init__(self, setup: OcrSetup) -> None:
        settings = EngineSettings(**{**setup.engine, "languages": tuple(setup.engine["languages"])})
        loader = adapter(settings.name)
        self.threads = setup.threads
        self.prepare_threads = setup.prepare_threads
        self._settings = settings
        self._attempts = setup.attempts
        self._version = loader.status().version or ""
        self._fetcher = source_fetcher(S3Settings.model_validate(setup.s3), setup.allowed_hosts)
        self._limits = ImageLimits(**setup.limits)
        self._chains = load_chains(setup.stages)
        self.batch_size = self._chains.batch_size
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
        (passed,) = self._chains.ahead.run([Passed.start(item.id, image)])
        return Prepared(item, _Page(image, passed), len(fetched.data), fetched.version, seconds)

    def process(self, batch: Sequence[Prepared]) -> Sequence[Processed]:
        there = [prepared for prepared in batch if prepared.value is not None]
        passed = self._chains.before.run(prepared.value.passed for prepared in there)
        read = [self._read(one) for one in passed]
        answers = iter(
            self._answer(prepared, found, one)
            for prepared, (found, _), one in zip(
                there, read, self._chains.behind.run(one for _, one in read), strict=True
            )
        )
        return [next(answers) if prepared.value is not None else Processed("skipped") for prepared in batch]

    def _fetch(self, item: PlannedItem) -> Fetched | None:
        """The item's bytes, None when it is still what an earlier run has read."""
        limit = self._limits.max_bytes
        if item.version is None and item.earlier_version is not None:
            return self._fetcher.fetch_if_changed(item.uri, earlier_version=item.earlier_version, max_bytes=limit)
        return self._fetcher.fetch(item.uri, expected_version=item.version, max_bytes=limit)

    def close(self) -> None:
        self._engine.close()
        self._chains.shutdown()

    def _read(self, passed: Passed) -> tuple[_Read, Passed]:
        """What the engine finds on the pieces of a page, joined, and the page as stages behind the engine get it."""
        if passed.failure is not None:
            return _Read(passed.pieces), passed
        started = time.perf_counter()
        try:
            text = joined(passed.pieces, [self._recognise(piece.value) for piece in passed.pieces])
            after = replace(passed, pieces=(StageItem(id=passed.id, value=text),))
        except ItemError as error:
            after = replace(passed, failure=error)
        after = replace(after, seconds={**passed.seconds, "recognise": time.perf_counter() - started})
        return _Read(passed.pieces, self._newly_spent()), after

    def _recognise(self, image: PageImage) -> PageText:
        for _ in range(self._attempts - 1):
            with contextlib.suppress(ItemError):
                return self._engine.recognise(image)
        return self._engine.recognise(image)

    def _answer(self, prepared: Prepared, read: _Read, passed: Passed) -> Processed:
        if passed.failure is not None:
            failure = ItemFailure.of(passed.failure)
            return Processed("failed", failure=failure, seconds=passed.seconds or None, api_cost=read.api_cost)
        page, image = passed.pieces[0].value, prepared.value.image
        width_px, height_px = size_of(read.pieces, image)
        row = OcrRow(
            id=prepared.item.id,
            source_uri=shown_uri(prepared.item.uri),
            status="succeeded",
            engine_name=self._settings.name,
            engine_version=self._version,
            finished_at=dt.datetime.now(dt.UTC),
            regions=page.regions,
            width_px=width_px,
            height_px=height_px,
            dpi=image.dpi,
            languages=self._settings.languages,
            confidence_is_default=page.confidence_is_default,
            usage=page.usage,
            metadata={**page.metadata, "stages": passed.notes} if passed.notes else page.metadata,
            page=prepared.item.page,
            frames=image.frames,
            seconds={name: round(value, 4) for name, value in {**prepared.seconds, **passed.seconds}.items()},
        )
        return Processed("succeeded", payload=to_payload(row), seconds=passed.seconds, api_cost=read.api_cost)

    def _newly_spent(self) -> float:
        """What a paying engine has spent since the last answer: failed pages are paid for too."""
        if not isinstance(self._engine, MeteredEngine):
            return 0.0
        with self._spending:
            total = self._engine.spent.cost_usd or 0.0
            new, self._spent = total - self._spent, total
            return new
