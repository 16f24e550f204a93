"""Planning a manifest of a million rows: from a real S3 server and back into it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness.paired import Figures, Median, median
from benchmarks.harness.place import Place
from benchmarks.harness.plots import Picture, bars
from benchmarks.harness.processes import BenchmarkError, run
from benchmarks.harness.result import Table
from benchmarks.harness.row import Found, Row, at_most
from pagemill_core.storage.embedded_s3 import EmbeddedS3
from pagemill_core.storage.s3 import S3Store
from pagemill_worker.environment import reveal

BUCKET = "library"
ROWS, QUICK_ROWS = 1_000_000, 1_000
ROUNDS = 3
FORMS = ("csv", "jsonl", "parquet")
NAMES = ("canonical_id", "absolute_image_path", "page", "title")
MEBIBYTE = 1 << 20


def measure(place: Place) -> Found:
    """CSV several times, the other forms once."""
    count, rounds = (QUICK_ROWS, 1) if place.quick else (ROWS, ROUNDS)
    samples: dict[str, list[Figures]] = {}
    with EmbeddedS3(place.folder("plan") / "s3") as server:
        server.create_bucket(BUCKET)
        store = S3Store(BUCKET, settings=server.settings("worker"))
        for form in FORMS[:1] if place.quick else FORMS:
            store.put(f"manifest.{form}", manifest_bytes(form, count))
            times = rounds if form == "csv" else 1
            samples[form] = [_plan(place, server, form, turn) for turn in range(times)]
        store.close()
    _check_all(samples, count)
    picture = Picture(place.output / f"{ROW.name}.png", f"Planning {count:,} rows from S3", "seconds")
    bars(picture, {form: {"planning": [run["seconds"] for run in runs]} for form, runs in samples.items()})
    return Found(
        checks=[
            at_most("planning a 1,000,000-row CSV from S3", 30.0, "s", _of(samples["csv"], "seconds")),
            at_most("memory while planning it", 512.0, "MiB", _of(samples["csv"], "peak_rss_mib")),
        ],
        tables=[_table(samples)],
        samples=samples,
        notes=["the process is fresh; its peak memory includes the interpreter and all imports"],
        plot=picture.path.name,
    )


def rows(count: int) -> Iterator[tuple[str, str, str, str]]:
    """Ids, paths and two further columns as archives have them."""
    for number in range(count):
        page = f"series-{number % 37:02d}/vol {number // 200:05d}/page_{number % 200:04d}"
        yield page, f"s3://{BUCKET}/pages/{page}.png", str(number % 200), f"Band {number // 200}, Seite {number % 200}"


def manifest_bytes(form: str, count: int) -> bytes:
    """The manifest in one form."""
    if form == "parquet":
        sink = io.BytesIO()
        pq.write_table(pa.table(dict(zip(NAMES, map(list, zip(*rows(count), strict=True)), strict=True))), sink)
        return sink.getvalue()
    if form == "jsonl":
        return "".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in rows(count)).encode()
    lines = (f'{item_id},{path},{page},"{title}"\r\n' for item_id, path, page, title in rows(count))
    return (",".join(NAMES) + "\r\n" + "".join(lines)).encode()


def _plan(place: Place, server: EmbeddedS3, form: str, turn: int) -> Figures:
    work = {
        "bucket": BUCKET,
        "manifest": f"manifest.{form}",
        "prefix": f"plan/{form}/{turn}/",
        "settings": reveal(server.settings("worker")),
    }
    command = place.python("benchmarks.sides.plan_million_rows")
    answer: Figures = json.loads(run(replace(command, stdin=json.dumps(work).encode())).stdout)
    return answer


def _check_all(samples: dict[str, list[Figures]], count: int) -> None:
    if any(run["items"] != count for runs in samples.values() for run in runs):
        raise BenchmarkError(f"a plan does not have {count} items")


def _of(runs: Sequence[Figures], figure: str) -> Median:
    return median([run[figure] for run in runs])


def _table(samples: dict[str, list[Figures]]) -> Table:
    columns = ["form", "s", "CPU s", "peak MiB", "shards", "plan's tables, MiB"]
    figures = ("seconds", "cpu_s", "peak_rss_mib", "shards", "tables_mib")
    cells = [[form, *(f"{_of(runs, name).value:.1f}" for name in figures)] for form, runs in samples.items()]
    return Table(title="By form of the manifest:", columns=columns, rows=cells)


ROW = Row(
    name="plan",
    question="How long does planning a million rows take?",
    how="The manifest lies in a bucket of the embedded S3 server and the plan's tables go back into it; one process, "
    "started for each round.",
    measure=measure,
    is_cheap=True,
)
