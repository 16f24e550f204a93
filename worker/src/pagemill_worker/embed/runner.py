"""The embedding half of a child process: pictures and texts in, one row of numbers each out.

Layer: `worker.embed`, below `worker.work`, which starts it by name. Loads each model once. Books are `book_runner`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagemill_core.errors import ItemError, RowUnusable
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_worker.embed.classify.classifier import load_classifier
from pagemill_worker.embed.classify_job import from_json
from pagemill_worker.embed.encoder import EncodedText, TextEncoder, VisualEncoder
from pagemill_worker.embed.gpu_share import gpu_bytes, take_gpu_share
from pagemill_worker.embed.label_runner import LabelRunner
from pagemill_worker.embed.load import load_text, load_visual
from pagemill_worker.embed.rows import pack
from pagemill_worker.embed.setup import EmbedSetup
from pagemill_worker.environment import source_fetcher
from pagemill_worker.fetch.fetched import Fetcher, shown_uri
from pagemill_worker.fetch.items import fetch_input, fetch_picture
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.images.load import load_page
from pagemill_worker.images.page import PageImage
from pagemill_worker.items import ItemFailure, PlannedItem
from pagemill_worker.stages.setup import load_chains
from pagemill_worker.work.runner import Prepared, Processed, Runner

MAX_TEXT_BYTES = 64 << 20  # arbitrary; a text of a table's cell, of which an encoder reads some kilobytes


@dataclass(frozen=True, slots=True)
class Encoders:
    """The loaded models of a job; at least one is there."""

    visual: VisualEncoder | None
    text: TextEncoder | None

    @property
    def batch_size(self) -> int:
        """How many items are worth handing over at once.

        As many as the pictures' model takes, since pictures wait in memory and a page's text with them; texts alone
        come by the hundred, so that those of like length are encoded together.
        """
        encoder = self.text if self.visual is None else self.visual
        return 1 if encoder is None else encoder.facts.batch_size

    @property
    def on_gpu(self) -> bool:
        """Whether a model computes on a GPU."""
        return any(
            encoder.facts.device.startswith("cuda") for encoder in (self.visual, self.text) if encoder is not None
        )

    def close(self) -> None:
        for encoder in (self.visual, self.text):
            if encoder is not None:
                encoder.close()


def make_runner(settings: Mapping[str, Any]) -> Runner:
    """Load the models that a set-up message names."""
    setup = EmbedSetup.model_validate(settings)
    if setup.gpu_share is not None:
        take_gpu_share(setup.gpu_share)
    visual, text = setup.encoders
    classifier = load_classifier(from_json(setup.classify)) if setup.classify is not None else None
    if classifier is not None and visual is None and text is None:
        return LabelRunner(setup, classifier)
    encoders = Encoders(
        load_visual(visual) if visual is not None else None, load_text(text) if text is not None else None
    )
    if setup.is_books:
        from pagemill_worker.embed.book_runner import BookRunner  # it builds on this module

        return BookRunner(setup, encoders, classifier, load_chains(setup.stages))
    if setup.stages:
        from pagemill_worker.embed.staged_runner import StagedRowRunner  # it builds on this module

        return StagedRowRunner(setup, encoders, load_chains(setup.stages))
    return RowRunner(setup, encoders)


@dataclass(frozen=True, slots=True)
class RowInput:
    """One item in memory: the picture as the model wants it, its text, and what is told of the picture."""

    picture: NDArray[np.uint8] | None
    text: str | None
    facts: Mapping[str, Any]


def facts_of(page: PageImage) -> dict[str, Any]:
    """What a result says of its picture."""
    return {"width": page.width_px, "height": page.height_px, "frames": page.frames}


class RowRunner:
    """Encodes items of one picture, one text, or both."""

    threads = 1

    def __init__(self, setup: EmbedSetup, encoders: Encoders) -> None:
        self.batch_size = encoders.batch_size
        self.prepare_threads = setup.prepare_threads or 1
        # Beside a model on a GPU the cores have nothing else to do; with one on the CPU each thread takes from it.
        is_measured = setup.prepare_threads is None and encoders.on_gpu
        self.most_prepare_threads = setup.cores if is_measured else self.prepare_threads
        self._encoders = encoders
        self._limits = ImageLimits(**setup.limits)
        self._fetcher: Fetcher = source_fetcher(S3Settings.model_validate(setup.s3), setup.allowed_hosts)

    def prepare(self, item: PlannedItem) -> Prepared:
        started = time.perf_counter()
        text = self.text_of(item) if self._encoders.text is not None else None
        if self._encoders.visual is None:
            seconds = {"fetch": time.perf_counter() - started}
            return Prepared(item, RowInput(None, text, {}), len((text or "").encode()), item.version, seconds)
        found = self.page_of(item)
        if found.value is None:
            return found
        between = time.perf_counter()
        given = self.row_input(found.value, text)
        seconds = {**found.seconds, "decode": found.seconds["decode"] + time.perf_counter() - between}
        return replace(found, value=given, seconds=seconds)

    def page_of(self, item: PlannedItem) -> Prepared:
        """The item with its picture as `value`, None where it is still what an earlier run has read."""
        started = time.perf_counter()
        fetched = fetch_picture(self._fetcher, item, max_bytes=self._limits.max_bytes)
        between = time.perf_counter()
        if fetched is None:
            return Prepared(item, None, 0, item.earlier_version, {"fetch": between - started})
        page = load_page(fetched.data, page=item.page, limits=self._limits, origin=shown_uri(item.uri))
        seconds = {"fetch": between - started, "decode": time.perf_counter() - between}
        return Prepared(item, page, len(fetched.data), fetched.version, seconds)

    def row_input(self, page: PageImage, text: str | None) -> RowInput:
        """A picture and its text as the encoders want them; the job has an encoder of pictures."""
        encoder = self._encoders.visual
        return RowInput(encoder.prepare(page) if encoder is not None else None, text, facts_of(page))

    def process(self, batch: Sequence[Prepared]) -> Sequence[Processed]:
        inputs = [prepared.value for prepared in batch if prepared.value is not None]
        encoded = iter(encode_rows(self._encoders, inputs))
        return [next(encoded) if prepared.value is not None else Processed("skipped") for prepared in batch]

    def gpu_bytes(self) -> int:
        return gpu_bytes() if self._encoders.on_gpu else 0

    def close(self) -> None:
        self._encoders.close()

    def text_of(self, item: PlannedItem) -> str:
        """The item's text. Raises: RowUnusable when it has none."""
        text = item.input.get("text")
        if isinstance(text, str):
            return text
        is_cell = "column" in item.input and self._encoders.visual is None
        fetched = fetch_input(self._fetcher, item, max_bytes=MAX_TEXT_BYTES) if is_cell else None
        if fetched is None:
            raise RowUnusable("the item has no text")
        return fetched.data.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """What the encoders gave for one input: a row a side, and what is told of it."""

    sides: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any]


def encode_rows(encoders: Encoders, inputs: Sequence[RowInput]) -> list[Processed]:
    """Encode items together; one that its encoder refuses fails alone."""
    started = time.perf_counter()
    encoded = encode_sides(encoders, inputs)
    seconds = {"encode": (time.perf_counter() - started) / max(1, len(inputs))}
    return [_processed(found, seconds) for found in encoded]


def _processed(found: EncodedRow | ItemError, seconds: Mapping[str, float]) -> Processed:
    if isinstance(found, ItemError):
        return Processed("failed", failure=ItemFailure.of(found), seconds=seconds)
    rows, data = pack({side: row[np.newaxis] for side, row in found.sides.items()})
    return Processed("succeeded", payload={"rows": rows, **found.facts}, seconds=seconds, data=data)


def encode_sides(encoders: Encoders, inputs: Sequence[RowInput]) -> list[EncodedRow | ItemError]:
    """Both sides of `inputs`, in order; an input that an encoder refuses is the error it was refused with."""
    visual = _one_by_one_on_error(_visual_encode(encoders), [given.picture for given in inputs])
    text = _one_by_one_on_error(_text_encode(encoders), [given.text for given in inputs])
    return [_joined(given, *found) for given, *found in zip(inputs, visual, text, strict=True)]


def _joined(given: RowInput, picture: Found, words: Found) -> EncodedRow | ItemError:
    sides: dict[str, NDArray[Any]] = {}
    facts = dict(given.facts)
    for side, found in (("visual", picture), ("text", words)):
        if isinstance(found, ItemError):
            return found
        if found is not None:
            sides[side] = found[0]
            facts |= found[1]
    return EncodedRow(sides, facts)


Encoded = tuple[NDArray[Any], Mapping[str, Any]]
Found = Encoded | ItemError | None
Encode = Callable[[Sequence[Any]], list[Encoded]]


def _one_by_one_on_error(encode: Encode | None, inputs: Sequence[Any]) -> list[Found]:
    """What `encode` gives for `inputs`; when it refuses, each is tried alone, so that only the culprit fails."""
    if encode is None or not inputs:
        return [None] * len(inputs)
    try:
        return list(encode(inputs))
    except ItemError as error:
        if len(inputs) == 1:
            return [error]
    return [found for given in inputs for found in _one_by_one_on_error(encode, [given])]


def _visual_encode(encoders: Encoders) -> Encode | None:
    encoder = encoders.visual
    if encoder is None:
        return None
    return lambda pictures: [(row, {}) for row in encoder.encode(pictures)]


def _text_encode(encoders: Encoders) -> Encode | None:
    encoder = encoders.text
    if encoder is None:
        return None

    def encode(texts: Sequence[str]) -> list[Encoded]:
        rows, told = encoder.encode(texts)
        return [(row, text_facts(one)) for row, one in zip(rows, told, strict=True)]

    return encode


def text_facts(told: EncodedText) -> dict[str, Any]:
    """What a result says of its text; flags only where they are set."""
    facts: dict[str, Any] = {"tokens": told.tokens}
    if told.truncated:
        facts["truncated"] = True
    if told.windows > 1:
        facts["windows"] = told.windows
    return facts
