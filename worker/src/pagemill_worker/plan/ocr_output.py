"""What an OcrJob has read, as items of another job: its pages with their text, or books of such pages.

Layer: `worker.plan`, above `parquet_scan`. Reads the dataset that the OcrJob committed: of every page the newest
success, and of a page that never succeeded the newest failure, which becomes a failed item; nothing is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pagemill_core.errors import ObjectNotFoundError, SourceError
from pagemill_core.storage.store import ObjectInfo, ObjectStore
from pagemill_core.work import layout as keys
from pagemill_core.work.records import IndexPointer, RunEntry
from pagemill_worker.embed.page_text import reference_result
from pagemill_worker.items import ItemFailure, Scalar
from pagemill_worker.plan.digests import DigestMap, digests_of
from pagemill_worker.plan.parquet_scan import ParquetScan
from pagemill_worker.plan.request import OcrOutputRequest
from pagemill_worker.plan.source_bytes import StoreBytes, StoreOpener

META_PREFIX = "meta_"
_NEEDED = ("row", "id", "status", "error_class", "error_message", "source_uri", "page", "version", "text")
_PART = re.compile(r"^dataset/run=(\d{8})/part-\d+\.parquet$").match


@dataclass(frozen=True, slots=True)
class OcrPage:
    """One page as the OcrJob left it. `text` is in the form that was asked for; `failure` says why there is none."""

    id: str
    uri: str
    page: int | None
    version: str | None
    text: str
    columns: dict[str, Scalar]
    failure: ItemFailure | None = None


@dataclass(slots=True)
class OcrOutput:
    """The output of an OcrJob, read twice: once for which row of a page counts, once for the rows.

    `columns` fills with the names of the source's own columns.
    """

    request: OcrOutputRequest
    open_store: StoreOpener
    scratch: Path
    columns: dict[str, str] = field(default_factory=dict)

    def pages(self) -> Iterator[OcrPage]:
        """All pages, in the order of runs and of rows in them.

        Raises: SourceError when there is no finished OcrJob's output; the store's errors.
        """
        store = self.open_store(self.request.uri)
        _check_at_rest(store)
        runs = _parts_by_run(store)
        if not runs:
            raise SourceError(
                f"{self.request.uri} holds no dataset of an OcrJob",
                advice="name the output.uri of an OcrJob that has finished",
            )
        choice = _Choice(self.scratch)
        for seq in sorted(runs, reverse=True):
            for part in runs[seq]:
                choice.look_at(seq, self._rows(store, part, ("row", "id", "status")))
        gone = _tombstoned(store, self.scratch)
        for seq in sorted(runs):
            for part in runs[seq]:
                yield from self._chosen(store, part, seq, choice, gone)

    def _chosen(
        self, store: ObjectStore, part: ObjectInfo, seq: int, choice: _Choice, gone: DigestMap
    ) -> Iterator[OcrPage]:
        wanted = [*_NEEDED, "regions"] if self.request.as_reference_json else list(_NEEDED)
        for columns in self._rows(store, part, wanted, with_further=True):
            counts = choice.counts(seq, columns)
            if len(gone):
                counts &= ~gone.find(digests_of(map(str, columns["id"]))).present
            further = [name for name in columns if name.startswith(META_PREFIX)]
            self.columns.update({name.removeprefix(META_PREFIX): "string" for name in further})
            for at in np.flatnonzero(counts).tolist():
                row = {name: cells[at] for name, cells in columns.items()}
                yield _page(row, {name.removeprefix(META_PREFIX): row[name] for name in further})

    def _rows(
        self, store: ObjectStore, part: ObjectInfo, names: Sequence[str], *, with_further: bool = False
    ) -> Iterator[dict[str, list[Scalar]]]:
        source = StoreBytes(store, part.key, f"{store.uri.rstrip('/')}/{part.key}")
        try:
            scan = ParquetScan(source, source.uri)
            missing = [name for name in names if name not in scan.types]
            if missing:
                raise SourceError(
                    f"{source.uri} has no column {missing[0]!r}: it is not the dataset of an OcrJob",
                    advice="name the output.uri of an OcrJob",
                )
            further = [name for name in scan.types if name.startswith(META_PREFIX)] if with_further else []
            for batch in scan.batches([*names, *further]):
                yield dict(batch.columns)
        finally:
            source.close()


class _Choice:
    """Which row of each page counts: the newest success, else the newest failure."""

    def __init__(self, scratch: Path) -> None:
        self._good = DigestMap(scratch)
        self._bad = DigestMap(scratch)

    def look_at(self, seq: int, batches: Iterator[dict[str, list[Scalar]]]) -> None:
        """Remember rows of run `seq`; runs must come newest first."""
        for columns in batches:
            for status, known in (("succeeded", self._good), ("failed", self._bad)):
                at = [index for index, found in enumerate(columns["status"]) if found == status]
                first = {str(columns["id"][index]): index for index in reversed(at)}
                rows = np.asarray([columns["row"][index] for index in first.values()], np.int64)
                digests = digests_of(first)
                new = ~known.find(digests).present
                known.add(digests[new], np.full(int(new.sum()), seq, np.uint64), rows[new])

    def counts(self, seq: int, columns: dict[str, list[Scalar]]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """By row of run `seq`: whether it is the one that counts."""
        rows = np.asarray(columns["row"], np.int64)
        digests = digests_of(map(str, columns["id"]))
        good, bad = self._good.find(digests), self._bad.find(digests)
        is_good = good.present & (good.payloads == seq) & (good.lines == rows)
        is_bad = ~good.present & bad.present & (bad.payloads == seq) & (bad.lines == rows)
        has_good = np.asarray([status == "succeeded" for status in columns["status"]], np.bool_)
        return np.where(has_good, is_good, is_bad)


def _page(row: dict[str, Scalar], columns: dict[str, Scalar]) -> OcrPage:
    failure = None
    if row["status"] != "succeeded":
        failure = ItemFailure(
            "RowUnusable", f"the OcrJob could not read the page: {row['error_class']}: {row['error_message']}"
        )
    page = row["page"]
    return OcrPage(
        id=str(row["id"]),
        uri=str(row["source_uri"]),
        page=page if isinstance(page, int) else None,
        version=None if row["version"] is None else str(row["version"]),
        text=_text(row) if failure is None else "",
        columns=columns,
        failure=failure,
    )


def _text(row: dict[str, Scalar]) -> str:
    if "regions" not in row:
        return str(row["text"] or "")
    try:
        regions = json.loads(str(row["regions"] or "[]"))
    except ValueError as error:
        raise SourceError(f"the regions of {row['id']!r} are not JSON", advice="run pagemill verify on it") from error
    return json.dumps(reference_result(regions))


def _check_at_rest(store: ObjectStore) -> None:
    """Raises: SourceError while a run of the OcrJob is not over: its dataset is not whole."""
    for info in store.list(keys.RUNS_PREFIX):
        if keys.seq_of_run_entry(info.key) is None:
            continue
        entry = RunEntry.from_bytes(store.get(info.key).data, info.key)
        if not entry.is_final:
            raise SourceError(
                f"{store.uri}: run {entry.seq} of the {entry.kind} there is not finished",
                advice="wait for it, or name the job with source.ocrJob.name, which waits by itself",
            )


def _parts_by_run(store: ObjectStore) -> dict[int, list[ObjectInfo]]:
    runs: dict[int, list[ObjectInfo]] = {}
    for info in store.list("dataset/run="):
        found = _PART(info.key)
        if found:
            runs.setdefault(int(found[1]), []).append(info)
    return {seq: sorted(parts, key=lambda info: info.key) for seq, parts in runs.items()}


def _tombstoned(store: ObjectStore, scratch: Path) -> DigestMap:
    """Pages that left the OcrJob's source: what was read of them once is still in its older runs."""
    gone = DigestMap(scratch)
    try:
        pointer = IndexPointer.from_bytes(store.get(keys.INDEX_POINTER).data, keys.INDEX_POINTER)
    except ObjectNotFoundError:
        return gone
    for part in pointer.parts:
        source = StoreBytes(store, part.key, f"{store.uri}/{part.key}")
        try:
            for batch in ParquetScan(source, source.uri).batches(["id", "status"]):
                cells = zip(batch.columns["id"], batch.columns["status"], strict=True)
                ids = list(dict.fromkeys(str(item_id) for item_id, status in cells if status == "tombstone"))
                digests = digests_of(ids)
                new = ~gone.find(digests).present
                zeros = np.zeros(int(new.sum()), np.uint64)
                gone.add(digests[new], zeros, zeros.astype(np.int64))
        finally:
            source.close()
    return gone
