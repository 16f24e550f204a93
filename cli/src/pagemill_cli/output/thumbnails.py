"""Small pictures of rows, for contact sheets: read where the plan says that the item lies.

Layer: `cli.output`. Reads only; a picture that cannot be had is a reason to show, never an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Lock

from pagemill_cli.output.target import Target
from pagemill_core.errors import AccessDeniedError, IntegrityError, ItemError, RetriableError
from pagemill_core.work import layout as keys
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.plan import read_plan
from pagemill_core.work.records import RunEntry
from pagemill_worker.embed.search.ids import RowFacts
from pagemill_worker.environment import source_fetcher
from pagemill_worker.fetch.fetched import Fetcher, shown_uri
from pagemill_worker.fetch.items import fetch_input
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.images.load import load_page
from pagemill_worker.images.thumbnail import thumbnail_jpeg
from pagemill_worker.items import PlannedItem
from pagemill_worker.plan.reader import ShardReader

MAX_SIDE_PX = 420  # sharp on a screen of twice the density, and some 25 KB each
_PARALLEL = 8
_LIMITS = ImageLimits(max_bytes=256 << 20)


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small JPEG, or why there is none."""

    picture: bytes | None
    why: str = ""


@dataclass(slots=True)
class Thumbnails:
    """Makes thumbnails of an output's rows. Safe to share between threads."""

    target: Target
    _plans: dict[int, ShardReader | None] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def of(self, rows: Sequence[RowFacts]) -> list[Thumbnail]:
        """A thumbnail of each row, in order; several are fetched at once."""
        if not rows:
            return []
        hosts = [host.strip() for host in self.target.settings.allowed_hosts.split(",") if host.strip()]
        fetcher = source_fetcher(self.target.s3, hosts)
        with ThreadPoolExecutor(min(_PARALLEL, len(rows)), thread_name_prefix="thumbnails") as pool:
            return list(pool.map(lambda row: self._one(row, fetcher), rows))

    def _one(self, row: RowFacts, fetcher: Fetcher) -> Thumbnail:
        try:
            item = self._planned(row) or PlannedItem(row=row.row, id=row.id, uri=row.source_uri, page=row.page)
            fetched = fetch_input(fetcher, replace(item, earlier_version=None), max_bytes=_LIMITS.max_bytes)
            if fetched is None:
                return Thumbnail(None, "not read")
            page = load_page(fetched.data, page=item.page, limits=_LIMITS, origin=shown_uri(item.uri))
            return Thumbnail(thumbnail_jpeg(page, MAX_SIDE_PX))
        except (ItemError, RetriableError, AccessDeniedError) as error:
            return Thumbnail(None, f"{error.reason}: {error.message}")

    def _planned(self, row: RowFacts) -> PlannedItem | None:
        """The row's own item; None for a page of a book, whose row names the page, and where no plan is left."""
        if row.book is not None:
            return None
        with self._lock:
            reader = self._reader(row.run)
            if reader is None:
                return None
            try:
                found = _item_at(reader, row.row)
            except IntegrityError:
                return None
        return found if found is not None and found.id == row.id else None

    def _reader(self, seq: int) -> ShardReader | None:
        if seq not in self._plans:
            writer = self.target.writer
            blob = writer.get(keys.run_entry(seq))
            entry = RunEntry.from_bytes(blob.data, keys.run_entry(seq)) if blob else None
            pointer = read_plan(writer, RunLayout(keys.run_id(seq, entry.work_key))) if entry else None
            self._plans[seq] = ShardReader(writer.store, pointer.parts) if pointer else None
        return self._plans[seq]


def _item_at(reader: ShardReader, row: int) -> PlannedItem | None:
    """The item at a row of the plan: shards are in order, so halving finds the one that holds it."""
    low, high = 0, reader.shard_count
    while low < high:
        middle = (low + high) // 2
        items = reader.items(middle)
        if not items:
            return None
        if row < items[0].row:
            high = middle
        elif row > items[-1].row:
            low = middle + 1
        else:
            return next((item for item in items if item.row == row), None)
    return None
