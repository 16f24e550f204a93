"""From an output to whoever can search it: the index where there is one that fits, else Parquet alone.

Layer: `worker.embed.search`, its front.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pagemill_core.api.v1alpha1 import EmbeddingJob
from pagemill_core.errors import IntegrityError
from pagemill_core.work import layout as keys
from pagemill_core.work.conditional import Writer
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.plan import read_plan
from pagemill_core.work.records import PlanPointer, RunEntry
from pagemill_worker.embed.search.by_index import open_index
from pagemill_worker.embed.search.by_parquet import ParquetSearcher
from pagemill_worker.embed.search.hits import Searcher
from pagemill_worker.embed.search.manifest import IndexManifest, read_manifest
from pagemill_worker.embed.search.rows import VECTORS, LiveRows
from pagemill_worker.embed.search.space import JobSpace, Space, space_of
from pagemill_worker.embed.settings import ModelsSettings

SPACE_IN_FOOTER = b"pagemill.space"
"""Metadata of a part that says how to search it, so that a dataset copied elsewhere is searchable by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """How to search: `exact` leaves the index alone; `cache` keeps copies of indexes that lie elsewhere."""

    column: str = VECTORS
    exact: bool = False
    threads: int = 1
    cache: Path | None = None


@contextmanager
def open_searcher(writer: Writer, settings: SearchSettings) -> Iterator[Searcher]:
    """Whoever can search the output.

    Raises: ObjectNotFoundError without a dataset and without an index; InvalidSpecError when `column` has no vectors;
    IntegrityError when the index belongs to other rows than the dataset's newest.
    """
    manifest = None if settings.exact else read_manifest(writer)
    with tempfile.TemporaryDirectory(prefix="pagemill-search-") as folder:
        if manifest is None or manifest.column != settings.column:
            rows = LiveRows.open(writer.store, Path(folder), settings.column)
            yield ParquetSearcher(rows, footer_space(rows) or planned_space(writer, rows), rows.dim)
            return
        notes = _compare(writer, manifest, Path(folder))
        with open_index(writer.store, manifest, threads=settings.threads, cache=settings.cache) as searcher:
            searcher.notes = notes
            yield searcher


def space_metadata(space: Space) -> Mapping[bytes, bytes]:
    """What a part's schema carries so that it can be searched by itself."""
    return {SPACE_IN_FOOTER: space.model_dump_json(by_alias=True, exclude_none=True).encode()}


def footer_space(rows: LiveRows) -> Space | None:
    """The space that the newest part carries, None where it carries none. Raises: IntegrityError for a damaged one."""
    body = (rows.schema.metadata or {}).get(SPACE_IN_FOOTER)
    if body is None:
        return None
    try:
        return Space.model_validate_json(body)
    except ValidationError as error:
        raise IntegrityError(f"{rows.parts[0].key} carries a damaged {SPACE_IN_FOOTER.decode()}") from error


def planned_space(writer: Writer, rows: LiveRows) -> Space:
    """The space by the newest run's plan; an empty one where there is no plan, which `like` can still search."""
    blob = writer.get(keys.run_entry(rows.newest))
    if blob is None:
        return Space()
    entry = RunEntry.from_bytes(blob.data, keys.run_entry(rows.newest))
    pointer = read_plan(writer, RunLayout(keys.run_id(entry.seq, entry.work_key)))
    return Space() if pointer is None or pointer.kind != "EmbeddingJob" else space_of_plan(pointer, rows.column)


def space_of_plan(pointer: PlanPointer, column: str = VECTORS) -> Space:
    """The space of a run's rows. Raises: IntegrityError when the plan records no valid job."""
    spec = {name: value for name, value in pointer.work.items() if name != "kind"}
    spec["output"] = {**spec.get("output", {}), "uri": "out"}
    document = {
        "apiVersion": "pagemill.dev/v1alpha1",
        "kind": "EmbeddingJob",
        "metadata": {"name": "run"},
        "spec": spec,
    }
    try:
        job = EmbeddingJob.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise IntegrityError(f"the plan of run {pointer.run} records work that is no valid job") from error
    return space_of(JobSpace(job, pointer.fingerprint_fields, column, ModelsSettings().dir))


def _compare(writer: Writer, manifest: IndexManifest, scratch: Path) -> tuple[str, ...]:
    """What to tell about an index and the dataset beside it. Raises: IntegrityError when they are not of one kind."""
    rows = LiveRows.open(writer.store, scratch, manifest.column)
    if rows.newest <= manifest.seq:
        return ()
    if rows.fingerprint != manifest.fingerprint:
        raise IntegrityError(
            f"the index of run {manifest.run} has fingerprint {manifest.fingerprint[:12]}, the dataset's newest run "
            f"{rows.newest} has {rows.fingerprint[:12]}: {_what_differs(writer, manifest, rows)}",
            advice="build the index anew (output.formats: [faiss]), or search the rows themselves: --exact",
        )
    return (f"rows of runs after {manifest.run} are not in the index yet; --exact finds them too",)


def _what_differs(writer: Writer, manifest: IndexManifest, rows: LiveRows) -> str:
    now = planned_space(writer, rows)
    names = [
        f"{side}.{name}"
        for side, made_by in manifest.space.made_by.items()
        for name, value in (made_by.items() if isinstance(made_by, dict) else ())
        if isinstance(now.made_by.get(side), dict) and now.made_by[side].get(name) != value  # type: ignore[union-attr]
    ]
    return f"they differ in {', '.join(names)}" if names else "another model or other settings made them"
