"""What stands in `index/`: objects that never change, and one pointer that makes them the index.

Layer: `worker.embed.search`. `index/manifest.json` is changed by compare-and-swap and only ever moves to a newer run,
so that a reader, or a kill at any point, finds the old index or the new one, never parts of both.
"""

from __future__ import annotations

from typing import Literal

from pagemill_core.errors import StoreUnavailableError
from pagemill_core.work.conditional import UNDECIDED, Writer
from pagemill_core.work.records import Record, Sub
from pagemill_worker.embed.search.space import Space

ROOT = "index/"
MANIFEST_KEY = f"{ROOT}manifest.json"
REPORT_KEY = f"{ROOT}report.json"
ShapeName = Literal["flat", "ivfPq", "hnsw"]
Action = Literal["Built", "Added", "Unchanged"]


class Effort(Sub):
    """How hard a search looks: lists of the compressed index, candidates for each row asked for, breadth of the graph.

    A flat index looks at everything.
    """

    nprobe: int = 1
    candidates: int = 1
    ef_search: int = 16


class Recall(Sub):
    """Share of the true ten nearest rows that a search finds, over `sample` of the rows themselves as queries."""

    at: int = 10
    sample: int = 0
    wanted: float = 0.0
    measured: float = 1.0
    is_met: bool = True


class IndexReport(Record):
    """What building or adding to the index found. `rows` are positions, `dead` those that no search answers with.

    `unusable` rows have no direction; `left_out` parts of the dataset carry another fingerprint.
    """

    run: str
    action: Action
    kind: ShapeName
    rows: int
    dead: int = 0
    added: int = 0
    unusable: int = 0
    left_out: int = 0
    dim: int
    trained_rows: int = 0
    effort: Effort = Effort()
    recall: Recall = Recall()
    size_bytes: int = 0
    seconds: dict[str, float] = {}


class IndexObject(Sub):
    """One object of the index; `rows` are the positions that it holds."""

    key: str
    size: int
    rows: int = 0


class IndexManifest(Record):
    """The pointer. `index` is read by FAISS, `ids` maps positions to rows, `vectors` hold what a compressed index needs
    to score its candidates: float16, row after row, positions in order."""

    seq: int
    run: str
    fingerprint: str
    kind: ShapeName
    metric: Literal["cosine"] = "cosine"
    column: str = "embedding"
    dim: int
    space: Space = Space()
    index: IndexObject
    ids: IndexObject
    vectors: list[IndexObject] = []
    report: IndexReport

    @property
    def rows(self) -> int:
        return self.report.rows

    def object_keys(self) -> set[str]:
        """Every object that this index needs."""
        return {self.index.key, self.ids.key, *(each.key for each in self.vectors)}


def version_prefix(seq: int, attempt: str) -> str:
    """Where one attempt at an index writes."""
    return f"{ROOT}{seq:08d}-{attempt}/"


def read_manifest(writer: Writer) -> IndexManifest | None:
    """The index as it stands, None where there is none."""
    blob = writer.get(MANIFEST_KEY)
    return None if blob is None else IndexManifest.from_bytes(blob.data, MANIFEST_KEY)


def show_manifest(writer: Writer, manifest: IndexManifest) -> IndexManifest:
    """Make `manifest` the index unless one of this or a newer run is. Returns: the one that is shown."""
    backoff = writer.backoff()
    body = manifest.to_bytes()
    while True:
        try:
            if writer.store.put_if_absent(MANIFEST_KEY, body) is not None:
                return manifest
            blob = writer.get(MANIFEST_KEY)
            if blob is None:
                raise StoreUnavailableError(f"{MANIFEST_KEY} exists and is not there: it was deleted meanwhile")
            found = IndexManifest.from_bytes(blob.data, MANIFEST_KEY)
            if found.seq >= manifest.seq:
                return found
            if writer.store.put_if_match(MANIFEST_KEY, body, blob.token) is not None:
                return manifest
        except UNDECIDED as error:
            backoff.wait(error)


def sweep(writer: Writer, shown: IndexManifest, replaced: IndexManifest | None) -> int:
    """Delete what attempts of this and earlier runs left that neither index needs. Returns: how many objects.

    The replaced index stays, for whoever is searching in it, until the next one replaces this.
    """
    needed = shown.object_keys() | (replaced.object_keys() if replaced else set())
    gone = 0
    for info in writer.listing(ROOT):
        version = info.key.removeprefix(ROOT)[:8]
        if version.isdecimal() and int(version) <= shown.seq and info.key not in needed:
            writer.retrying(lambda key=info.key: writer.store.delete(key))  # type: ignore[misc]
            gone += 1
    return gone
