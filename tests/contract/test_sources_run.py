"""Where pages come from and where results go: every combination through the command, with the same results.

Also that neither the number of processes nor the cut into shards can be seen in what comes out.
"""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pagemill_cli.testing.command import Told, s3_environment
from pagemill_cli.testing.ocr_job import OcrJobFile, OcrResults
from pagemill_core.storage.folder import FolderStore
from pagemill_core.storage.store import ObjectStore
from pagemill_core.testing import ocr_pages
from pagemill_core.testing.seaweed import SeaweedServer

ODD_NAMES = ("plain", "a #1", "two words", "100% done %2F", "fête ê", "ページ", "deep/er/nested", "e\u0302 decomposed")
PAGE = ocr_pages.note(0)
BOOK = [ocr_pages.note(number) for number in (1, 2)]
FAX = [ocr_pages.note(number) for number in (3, 4)]
LIBRARY: dict[str, bytes] = {
    **{f"{name}.png": PAGE.as_bytes() for name in ODD_NAMES},
    "book.pdf": ocr_pages.pdf_of(BOOK),
    "fax.tiff": ocr_pages.tiff_of(FAX),
    "single.tif": ocr_pages.note(5).as_bytes("TIFF"),
    "photo.JPG": ocr_pages.note(5).as_bytes("JPEG"),
    "notes.txt": b"no page",
    "drafts/old.png": PAGE.as_bytes(),
    "._plain.png": b"a resource fork",
    "Thumbs.db": b"junk",
}
WANT_IDS = {*ODD_NAMES, "book#p0001", "book#p0002", "fax#p0001", "fax#p0002", "single", "photo"}


def fill(put: Callable[[str, bytes], object]) -> None:
    for name, data in LIBRARY.items():
        put(name, data)


def images(uri: str) -> dict[str, Any]:
    return {"images": {"uri": uri, "exclude": ["drafts/*"], "pdfDpi": 150}}


def timeless(value: Any) -> Any:
    """JSON of a result without what tells when and how fast it was made."""
    told = copy.deepcopy(value)
    told.pop("timestamp", None)
    told["pagemill"].pop("seconds")
    told.pop("source_image_path")
    return told


def pages_of(results: OcrResults) -> dict[str, Any]:
    return {item: timeless(page) for item, page in results.pages().items()}


@dataclass(frozen=True)
class Combination:
    told: Told
    results: OcrResults
    second: Told


@pytest.fixture(scope="module")
def combinations(s3_server: SeaweedServer, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Combination]:
    """The same library read from a folder and from a bucket, into a folder and into a bucket; each run twice."""
    folder = tmp_path_factory.mktemp("sources")
    name = s3_server.fresh_bucket()
    bucket: ObjectStore = s3_server.store(name, "library")

    def put_file(key: str, data: bytes) -> None:
        path = folder / "library" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    fill(put_file)
    fill(bucket.put)
    sources = {"folder": str(folder / "library"), "s3": f"s3://{name}/library"}
    outputs = {"folder": str(folder / "out-{}"), "s3": f"s3://{name}/out-{{}}"}
    stores: dict[str, Callable[[str], ObjectStore]] = {
        "folder": lambda place: FolderStore(folder / place),
        "s3": lambda place: s3_server.store(name, place),
    }
    found = {}
    for number, (source, output) in enumerate((a, b) for a in sources for b in outputs):
        job = OcrJobFile(
            folder,
            {
                "source": images(sources[source]),
                "output": {"uri": outputs[output].format(source)},
                # The cut and the processes differ everywhere, so that what is equal does not hang on them.
                "sharding": {"itemsPerShard": (1, 3, 5, 100)[number]},
            },
            name=f"{source}-to-{output}",
            environment=s3_environment(s3_server.server.settings("worker")),
            processes=1 + number % 2,
        )
        results = OcrResults(stores[output](f"out-{source}"))
        found[job.name] = Combination(job.run(), results, job.run())
    return found


COMBINATIONS = ("folder-to-folder", "folder-to-s3", "s3-to-folder", "s3-to-s3")


@pytest.mark.s3
@pytest.mark.parametrize("name", COMBINATIONS)
def test_combination_reads_every_page_of_every_file_under_its_own_id(
    combinations: Mapping[str, Combination], name: str
) -> None:
    """`#`, spaces, `%`, accents in both normal forms and Japanese stay as they are; folders nest."""
    run = combinations[name]
    assert run.told.status == 0, run.told.all
    assert run.told.json["items"] == {"planned": 14, "succeeded": 14, "failed": 0, "skipped": 0}
    assert run.results.pages().keys() == WANT_IDS
    assert {page["canonical_id"] for page in run.results.pages().values()} == WANT_IDS
    assert {row["id"] for row in run.results.rows()} == WANT_IDS


@pytest.mark.s3
@pytest.mark.parametrize("name", COMBINATIONS)
def test_combination_reads_the_right_text_of_each_page(combinations: Mapping[str, Combination], name: str) -> None:
    printed = {f"book#p{number:04}": page for number, page in enumerate(BOOK, 1)}
    printed |= {f"fax#p{number:04}": page for number, page in enumerate(FAX, 1)}
    printed |= dict.fromkeys(ODD_NAMES, PAGE) | dict.fromkeys(("single", "photo"), ocr_pages.note(5))
    pages = combinations[name].results.pages()
    for item, page in printed.items():
        assert ocr_pages.share_of_words_read(page.words, pages[item]["full_text"]) >= 0.9, item
    assert pages["book#p0002"]["pagemill"]["page"] == 1


@pytest.mark.s3
@pytest.mark.parametrize("name", COMBINATIONS[1:])
def test_combinations_give_the_same_pages(combinations: Mapping[str, Combination], name: str) -> None:
    """The same whatever the stores, the number of processes (1 and 2) and the items in a shard (1, 3, 5, 100)."""
    assert pages_of(combinations[name].results) == pages_of(combinations["folder-to-folder"].results)


@pytest.mark.s3
@pytest.mark.parametrize("name", COMBINATIONS)
def test_combination_run_again_does_nothing(combinations: Mapping[str, Combination], name: str) -> None:
    second = combinations[name].second
    assert (second.status, second.json["worked"]) == (0, False), second.all


def test_processes_and_shards_leave_no_trace_in_the_bytes_of_results(tmp_path: Path) -> None:
    """Apart from times, every file is the same to the byte, and so are the dataset's rows, in the same order."""
    (tmp_path / "pages").mkdir()
    for number in range(6):
        (tmp_path / "pages" / f"p{number}.png").write_bytes(ocr_pages.note(number).as_bytes())
    pictures = []
    for processes, items in ((1, 6), (2, 1)):
        spec = {
            "source": {"images": {"uri": "pages"}},
            "output": {"uri": f"out-{processes}", "formats": ["json", "text", "hocr", "alto"]},
            "sharding": {"itemsPerShard": items},
        }
        told = OcrJobFile(tmp_path, spec, name=f"job-{processes}", processes=processes).run()
        assert told.status == 0, told.all
        results = OcrResults(FolderStore(tmp_path / f"out-{processes}"))
        keys = [key for key in results.listing("ocr_results/") if not key.endswith(".json")]
        files = {key: _undated(results.raw(key)) for key in keys}
        rows = [{**row, "finished_at": None} for row in results.rows()]
        pictures.append((pages_of(results), files, rows))
    one, two = pictures
    assert one[0] == two[0]
    assert {key: _undated(data) for key, data in one[1].items()} == {
        key: _undated(data) for key, data in two[1].items()
    }
    assert one[2] == two[2]


def _undated(data: bytes) -> bytes:
    """ALTO says in an element of its own when the page was read."""
    return b"\n".join(line for line in data.splitlines() if b"processingDateTime" not in line)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_manifest_of_another_kind_is_read_with_its_columns(tmp_path: Path, kind: str) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "p.png").write_bytes(PAGE.as_bytes())
    rows = [{"name": "vol/1 #é", "file": "p.png", "year": 1931, "tags": ["a", "b"]}]
    if kind == "jsonl":
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        (tmp_path / "manifest.jsonl").write_text("".join(f"{line}\n\n" for line in lines), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "manifest.parquet")
    source = {
        "uri": f"manifest.{kind}",
        "idColumn": "name",
        "pathColumn": "file",
        "pathPrefix": str(tmp_path / "pages"),
    }
    job = OcrJobFile(tmp_path, {"source": {"manifest": source}})
    told = job.run()
    results = OcrResults(FolderStore(tmp_path / "out"))
    assert told.status == 0, told.all
    (row,) = results.rows()
    assert row["id"] == "vol/1 #é"
    assert (row["meta_year"], json.loads(row["meta_tags"])) == ("1931", ["a", "b"])
    assert results.page("vol/1 #é")["num_regions"] > 0


def test_relative_paths_start_at_the_files_that_name_them(tmp_path: Path) -> None:
    """The manifest beside the job, the pages beside the manifest: the folder can be moved."""
    (tmp_path / "lists" / "pages").mkdir(parents=True)
    (tmp_path / "lists" / "pages" / "p.png").write_bytes(PAGE.as_bytes())
    (tmp_path / "lists" / "m.csv").write_text("canonical_id,absolute_image_path\np,pages/p.png\n")
    spec = {"source": {"manifest": {"uri": "lists/m.csv"}}, "output": {"uri": "out"}}
    told = OcrJobFile(tmp_path, spec).run()
    assert told.status == 0, told.all
    assert told.json["items"]["succeeded"] == 1


def test_trial_run_reads_the_first_items_alone(tmp_path: Path) -> None:
    """`maxItems`; the whole job, run afterwards on the same output, is other work and does not mix with it."""
    (tmp_path / "pages").mkdir()
    for number in range(4):
        (tmp_path / "pages" / f"p{number}.png").write_bytes(PAGE.as_bytes())
    job = OcrJobFile(tmp_path, {"source": {"images": {"uri": "pages"}}, "maxItems": 2})
    told = job.run()
    assert told.status == 0, told.all
    results = OcrResults(FolderStore(tmp_path / "out"))
    assert results.pages().keys() == {"p0", "p1"}
    job.spec = {"source": {"images": {"uri": "pages"}}}
    told = job.run()
    assert told.status == 0, told.all
    assert results.pages().keys() == {"p0", "p1", "p2", "p3"}


@pytest.mark.s3
@pytest.mark.parametrize("where", ["folder", "s3"])
def test_incremental_run_reads_what_is_new_or_changed_and_nothing_else(
    tmp_path: Path, s3_server: SeaweedServer, where: str
) -> None:
    name = s3_server.fresh_bucket()
    uri = str(tmp_path / "pages") if where == "folder" else f"s3://{name}/pages"
    pages: ObjectStore = FolderStore(tmp_path / "pages") if where == "folder" else s3_server.store(name, "pages")
    for number in range(3):
        pages.put(f"p{number}.png", ocr_pages.note(number).as_bytes())
    job = OcrJobFile(
        tmp_path,
        {"source": {"images": {"uri": uri}}, "incremental": True},
        environment=s3_environment(s3_server.server.settings("worker")),
    )
    results = OcrResults(FolderStore(tmp_path / "out"))
    assert job.run().json["items"]["succeeded"] == 3
    before = results.tokens("ocr_results/")
    nothing = job.run()
    assert nothing.status == 0, nothing.all
    assert nothing.json["items"]["planned"] == 0
    assert results.tokens("ocr_results/") == before

    pages.put("p1.png", ocr_pages.note(4).as_bytes())
    pages.put("p3.png", ocr_pages.note(3).as_bytes())
    pages.delete("p0.png")
    told = job.run()
    assert told.status == 0, told.all
    assert told.json["items"] == {"planned": 2, "succeeded": 2, "failed": 0, "skipped": 0}
    after = results.tokens("ocr_results/")
    assert {key for key in after if after[key] != before.get(key)} == {
        "ocr_results/p1_ocr.json",
        "ocr_results/p3_ocr.json",
    }
    text = results.page("p1")["full_text"]
    assert ocr_pages.share_of_words_read(ocr_pages.note(4).words, text) >= 0.9


def test_views_of_every_format_come_from_one_run(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "p.png").write_bytes(PAGE.as_bytes())
    formats = ["json", "ocrResult", "hocr", "alto", "text", "pdf"]
    job = OcrJobFile(tmp_path, {"source": {"images": {"uri": "pages"}}, "output": {"uri": "out", "formats": formats}})
    told = job.run()
    assert told.status == 0, told.all
    results = OcrResults(FolderStore(tmp_path / "out"))
    names = {"p_ocr.json", "p.json", "p.hocr", "p.alto.xml", "p.txt", "p.pdf"}
    assert set(results.listing("ocr_results/")) == {f"ocr_results/{name}" for name in names}
    assert results.raw("ocr_results/p.txt").decode().split() == results.page("p")["full_text"].split()
    assert results.raw("ocr_results/p.pdf").startswith(b"%PDF-")
    assert io.BytesIO(results.raw("report.html")).read(15).lower() == b"<!doctype html>"
