"""EmbeddingJobs through the command, with real models: books to tensors, data sets to a table, texts to rows.

The numbers in names and comments are those of the table of features that users of the older systems rely on.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pagemill_cli.testing.command import Told, run_command, s3_environment
from pagemill_core.storage.folder import FolderStore
from pagemill_core.storage.store import ObjectStore
from pagemill_core.testing.seaweed import SeaweedServer
from pagemill_core.testing.web_server import answer, serving
from pagemill_worker.testing.tiny_models import DIM, tiny_clip

pytestmark = pytest.mark.timeout(600)

TEXT_DIM = 384  # of all-MiniLM-L6-v2
ODD = ("Night Mill #1, (1950)", "Été… nº 2", "series/volume 3")
MODES = ("L", "RGBA", "P", "CMYK", "I;16", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("models") / "tiny")


@dataclass
class Job:
    """An EmbeddingJob's file in `folder`, run as a person would."""

    folder: Path
    spec: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *options: str) -> Told:
        document = {
            "apiVersion": "pagemill.dev/v1alpha1",
            "kind": "EmbeddingJob",
            "metadata": {"name": "job"},
            "spec": {"output": {"uri": str(self.folder / "out")}, "retries": {"maxFailedItems": "100%"}, **self.spec},
        }
        file = self.folder / "job.yaml"
        file.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
        log = ("--log", str(self.folder / "log"), "--quiet", "--processes", "1")
        return run_command("run", file, *log, *options, environment=dict(self.environment))


def picture(seed: int, mode: str = "RGB", size: tuple[int, int] = (60, 80), form: str = "PNG") -> bytes:
    """A picture unlike those of other seeds."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    image = Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode != "RGB":
        image = image.convert(mode)
    out = io.BytesIO()
    image.save(out, "TIFF" if mode == "CMYK" and form == "PNG" else form)
    return out.getvalue()


def fill_books(put: Callable[[str, bytes], object]) -> None:
    """Books of every kind below `books/`, and their annotations."""
    for number, book in enumerate(ODD):
        for page in (10, 2, 1):
            put(f"books/{book}/page_{page}.png", picture(100 * number + page))
            put(f"books/{book}/page_{page}.json", json.dumps({"OCRResult": {"full_text": f"page {page}"}}).encode())
    for number, name in enumerate(("B.JPG", "a.jpg", "c.jpeg")):  # 8: suffixes in any case
        put(f"books/suffixes/{name}", picture(500 + number, form="JPEG"))
    for name in ("._a.jpg", "Thumbs.db", "notes.txt", "d.webp"):  # 17: no pages
        put(f"books/suffixes/{name}", b"junk")
    for number, mode in enumerate(MODES):  # 19
        form = "JPEG" if mode == "CMYK" else "PNG"
        put(f"books/modes/{number}.{'jpg' if form == 'JPEG' else 'png'}", picture(600 + number, mode, form=form))
    put("books/modes/6.png", picture(606, size=(1, 1)))
    put("books/modes/7.png", picture(607, size=(300, 3)))
    for state, data in (
        ("0missing", None),
        ("1empty", b""),
        ("2cut", b'{"OCR'),
        ("3bom", b'\xef\xbb\xbf{"OCRResult": 1}'),
    ):
        put(f"books/texts/{state}.png", picture(700))
        if data is not None:
            put(f"books/texts/{state}.json", data)
    put("books/texts/4none.png", picture(700))
    put("books/texts/4none.json", b'{"other": 1}')
    put("books/texts/5null.png", picture(700))
    put("books/texts/5null.json", b'{"OCRResult": null}')
    put("books/bad/1.png", picture(800))
    put("books/bad/2.png", picture(801)[:60])  # 14
    put("books/bad/3.png", b"")
    put("books/no pages/readme.txt", b"nothing here")
    names = [*ODD, "suffixes", "modes", "texts", "bad", "no pages", "nowhere", "../outside"]
    put("annotations.json", json.dumps([{"hash_code": name, "covers": []} for name in names]).encode())


def books(uri: str, model: Path) -> dict[str, Any]:
    return {
        "source": {"books": {"uri": f"{uri}/books", "annotations": f"{uri}/annotations.json"}},
        "visual": {"model": {"uri": str(model)}},
        "text": {"model": {"name": "all-minilm-l6-v2"}},
    }


@dataclass(frozen=True)
class Done:
    """A job that ran: what it told, and its output."""

    job: Job
    told: Told
    output: ObjectStore

    def tensor(self, key: str) -> torch.Tensor:
        found: torch.Tensor = torch.load(io.BytesIO(self.output.get(key).data))  # 3: with the defaults
        return found

    def record(self, book: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.output.get(f"records/{book}.json").data)
        return found

    def keys(self, prefix: str) -> set[str]:
        return {info.key for info in self.output.list(prefix)}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Done:
    folder = tmp_path_factory.mktemp("books")
    source = FolderStore(folder / "library")
    fill_books(source.put)
    job = Job(folder, books(str(folder / "library"), model))
    return Done(job, job.run("--output", "json"), FolderStore(folder / "out"))


GOOD = (*ODD, "suffixes", "modes", "texts")


def test_every_listed_book_ends_in_one_state_with_a_record(library: Done) -> None:  # 1, 15, 16, 18
    assert library.told.status == 0, library.told.all
    assert library.told.json["items"] == {"planned": 10, "succeeded": 6, "failed": 4, "skipped": 0}
    assert library.told.json["failedByClass"] == {"UnsafeId": 1, "BookMissing": 1, "BookEmpty": 1, "BookPagesFailed": 1}
    statuses = {book: library.record(book)["status"] for book in (*GOOD, "nowhere", "no pages", "bad")}
    assert statuses == {
        **dict.fromkeys(GOOD, "success"),
        "nowhere": "missing_directory",
        "no pages": "no_images",
        "bad": "error",
    }
    assert library.record("no pages")["pages"] == 0
    outside = [path for path in library.job.folder.rglob("*outside*")]
    assert outside == []


def test_both_sides_of_a_book_are_plain_tensors_of_its_pages(library: Done) -> None:  # 1-5, 13, 16
    for side in ("visual", "text"):
        assert library.keys(f"{side}/") == {f"{side}/{book}.pt" for book in GOOD}
    for book in GOOD:
        visual, text = library.tensor(f"visual/{book}.pt"), library.tensor(f"text/{book}.pt")
        assert (visual.shape[1], text.shape[1], len(visual)) == (DIM, TEXT_DIM, len(text)), book
        assert {visual.dtype, text.dtype} == {torch.float32}
        assert torch.isfinite(visual).all()
        assert visual.abs().amax(dim=1).min() > 0
        assert torch.allclose(text.norm(dim=1), torch.ones(len(text)), atol=1e-4)  # 10
        record = library.record(book)
        assert record["visual_shape"] == list(visual.shape)
        assert record["text_shape"] == list(text.shape)
        assert (record["visual_key"], record["text_key"]) == (f"visual/{book}.pt", f"text/{book}.pt")


def test_rows_stand_in_code_point_order_of_the_names(library: Done) -> None:  # 6, 7, 8
    pages = {page["name"]: page for page in _pages(library, "suffixes")}
    assert list(pages) == ["B.JPG", "a.jpg", "c.jpeg"]
    assert [page["name"] for page in _pages(library, ODD[0])] == ["page_1.png", "page_10.png", "page_2.png"]


def _pages(done: Done, book: str) -> list[dict[str, Any]]:
    table = pd.concat(pd.read_parquet(io.BytesIO(done.output.get(key).data)) for key in sorted(done.keys("dataset/")))
    return [
        {"name": row.id.removeprefix(f"{book}/"), "tokens": row.tokens}
        for row in table[table.book == book].itertuples()
    ]


def test_each_state_of_the_text_has_one_meaning(library: Done) -> None:  # 11
    rows = library.tensor("text/texts.pt")
    missing, empty, cut, bom, none, null = rows
    for other in (empty, cut, bom):
        assert torch.equal(missing, other), "no text, whatever the reason"
    assert not torch.equal(missing, none)
    assert not torch.equal(none, null)


def test_a_bad_page_is_named_and_its_book_writes_neither_side(library: Done) -> None:  # 2, 14
    record = library.record("bad")
    assert "visual_key" not in record or record["visual_key"] is None
    shown = json.dumps(record)
    assert "2.png" in shown
    assert "ImageTruncated" in shown
    assert "3.png" in shown
    assert "ImageEmpty" in shown


def test_the_same_book_from_a_bucket_gives_the_same_bytes(
    library: Done, model: Path, s3_server: SeaweedServer, tmp_path: Path
) -> None:  # 22
    bucket = s3_server.fresh_bucket()
    source = s3_server.store(bucket, "library")
    fill_books(source.put)
    environment = s3_environment(s3_server.server.settings("worker"))
    spec = {**books(f"s3://{bucket}/library", model), "output": {"uri": f"s3://{bucket}/out"}}
    told = Job(tmp_path, spec, environment).run("--output", "json")
    assert told.status == 0, told.all
    there = s3_server.store(bucket, "out")
    for book in GOOD:
        for side in ("visual", "text"):
            key = f"{side}/{book}.pt"
            assert there.get(key).data == library.output.get(key).data, key


def test_a_second_run_rewrites_nothing(library: Done) -> None:  # 21
    before = {info.key: info.token for info in library.output.list("") if not info.key.startswith(".pagemill/")}
    told = library.job.run("--output", "json")
    assert (told.status, told.json["worked"]) == (0, False)
    assert {key: token for key, token in before.items() if library.output.head(key).token != token} == {}  # type: ignore[union-attr]


# -- data sets ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def web() -> Iterator[str]:
    pictures = {"/one.png": picture(1), "/two.png": picture(2), "/broken.png": picture(3)[:50]}
    with serving({path: answer(200, data) for path, data in pictures.items()}) as (port, _):
        yield f"http://127.0.0.1:{port}"


def dataset(folder: Path, server: str) -> dict[str, list[str]]:
    """img2dataset shards and a WebDataset tar below `folder`. Returns: the keys of good and of bad rows, in order."""
    folder.mkdir()
    (folder / "local.png").write_bytes(picture(4))
    rows = [
        {"url": f"{server}/one.png", "caption": "first", "key": "000001", "width": 60, "status": "success"},
        {"url": f"{server}/missing.png", "caption": None, "key": "000002", "width": None, "status": "success"},
        {"url": str(folder / "local.png"), "caption": "two", "key": "000001", "width": 61, "status": "success"},
        {"url": None, "caption": "none", "key": "000004", "width": 1, "status": "success"},
        {
            "url": f"{server}/two.png",
            "caption": "failed there",
            "key": "5",
            "width": 1,
            "status": "failed_to_download",
        },
        {"url": f"{server}/broken.png", "caption": "cut", "key": "6", "width": 1, "status": "success"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "00000.parquet")
    pq.write_table(pa.Table.from_pylist(rows).slice(0, 0), folder / "00001.parquet")  # 50: no row
    (folder / "nested").mkdir()
    pq.write_table(pa.table({"url": [f"{server}/two.png"]}), folder / "nested" / "00002.parquet")  # 50: poor
    (folder / "zz.parquet").write_bytes(b"PAR1 damaged")
    with tarfile.open(folder / "00003.tar", "w") as tar:
        for key in ("a/000010", "000011"):
            for suffix, data in ((".jpg", picture(9, form="JPEG")), (".txt", b"a caption"), (".json", b'{"width": 7}')):
                info = tarfile.TarInfo(key + suffix)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return {"good": ["000001", "000001", "a/000010", "000011", "nested/00002#000000000"]}


def test_a_data_set_becomes_one_table_in_input_order(tmp_path: Path, model: Path, web: str) -> None:
    expected = dataset(tmp_path / "laion", web)
    spec = {"source": {"dataset": {"uri": str(tmp_path / "laion")}}, "visual": {"model": {"uri": str(model)}}}
    told = Job(tmp_path, spec, {"PAGEMILL_ALLOWED_HOSTS": "127.0.0.1"}).run("--output", "json")
    assert told.status == 0, told.all
    items = told.json["items"]
    assert items["planned"] == items["succeeded"] + items["failed"] == 10  # 54: in = out + failed
    assert items["succeeded"] == 5

    table = pd.read_parquet(tmp_path / "out" / "embeddings.parquet")
    assert list(table.columns[:4]) == ["url", "key", "caption", "embedding"]  # 51
    vectors = np.array(table["embedding"].tolist())  # 57: the documented recipe
    assert vectors.shape == (5, DIM)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)  # 52
    assert table["key"].tolist() == expected["good"]  # 53, 56
    widths = table["meta_width"]
    assert widths.dtype.kind in "if" or str(widths.dtype) in ("Int64",)
    schema = pq.read_schema(tmp_path / "out" / "embeddings.parquet")
    assert schema.field("meta_width").type == pa.int64()  # 55
    metadata = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert (metadata["num_samples"], metadata["failed"]) == (5, 5)
    failures = pd.read_parquet(tmp_path / "out" / "failures.parquet")
    assert len(failures) == 5
    assert failures.filter(like="error").notna().all().all(), "each with its reason"


def test_max_items_counts_input_rows(tmp_path: Path, model: Path, web: str) -> None:  # 60
    dataset(tmp_path / "laion", web)
    source = {"dataset": {"uri": str(tmp_path / "laion")}}
    spec = {"source": source, "visual": {"model": {"uri": str(model)}}, "maxItems": 3}
    told = Job(tmp_path, spec, {"PAGEMILL_ALLOWED_HOSTS": "127.0.0.1"}).run("--output", "json")
    assert (told.status, told.json["items"]["planned"]) == (0, 3), told.all
    assert json.loads((tmp_path / "out" / "metadata.json").read_text())["max_items"] == 3


def test_texts_become_rows_with_their_own_columns(tmp_path: Path) -> None:
    lines = [{"id": f"t{n}", "text": text, "lang": "en"} for n, text in enumerate(["a cup of coffee", "", "a horse"])]
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps(line) for line in [*lines, {"id": "t3", "text": None}]))
    source = {"texts": {"uri": str(tmp_path / "texts.jsonl"), "idColumn": "id"}}
    told = Job(tmp_path, {"source": source, "text": {"model": {"name": "all-minilm-l6-v2"}}}).run("--output", "json")
    assert told.status == 0, told.all
    assert told.json["failedByClass"] == {"RowUnusable": 1}
    table = pd.read_parquet(tmp_path / "out" / "embeddings.parquet")
    assert len(table) == 3
    assert set(table["meta_lang"]) == {"en"}
