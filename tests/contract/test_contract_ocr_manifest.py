"""Manifests and the places they name, through the whole command: what is refused at once, and where paths lead."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from pagemill_cli.testing.command import Told, s3_environment
from pagemill_cli.testing.ocr_job import OcrJobFile, OcrResults
from pagemill_core.storage.folder import FolderStore
from pagemill_core.testing import ocr_pages
from pagemill_core.testing.seaweed import SeaweedServer
from pagemill_core.testing.web_server import Seen, answer, in_turn, raw, serving

LOOPBACK = {"PAGEMILL_ALLOWED_HOSTS": "127.0.0.0/8"}


def manifest_job(folder: Path, text: str, **spec: object) -> OcrJobFile:
    folder.mkdir(exist_ok=True)
    (folder / "manifest.csv").write_text(text, encoding="utf-8")
    return OcrJobFile(folder, {"source": {"manifest": {"uri": "manifest.csv"}}, **spec})


def results_of(job: OcrJobFile) -> OcrResults:
    return OcrResults(FolderStore(job.folder / "out"))


@pytest.mark.parametrize(
    ("header", "missing"),
    [("id,absolute_image_path", "canonical_id"), ("canonical_id,path", "absolute_image_path")],
    ids=["id", "path"],
)
def test_manifest_without_a_column_is_refused_naming_it_and_what_there_is(
    tmp_path: Path, header: str, missing: str
) -> None:
    """Row 36: a missing column fails at admission, naming it."""
    job = manifest_job(tmp_path, f"{header}\na,a.png\n")
    told = job.run()
    assert told.status == 65, told.all
    assert missing in told.err
    for name in header.split(","):
        assert name in told.err
    assert results_of(job).listing("ocr_results/") == []


@pytest.mark.parametrize("text", ["canonical_id,absolute_image_path\r\n", "\ufeffcanonical_id,absolute_image_path"])
def test_manifest_without_rows_completes_with_0_of_0(tmp_path: Path, text: str) -> None:
    """Row 37: an empty manifest completes with 0 of 0, and says that there was nothing."""
    job = manifest_job(tmp_path, text)
    told = job.run()
    assert told.status == 0, told.all
    assert (told.json["outcome"], told.json["items"]["planned"], told.json["shards"]["total"]) == ("Complete", 0, 0)
    assert any("no item" in warning or "no row" in warning for warning in told.json["warnings"]), told.json["warnings"]
    assert results_of(job).summary()["total_images"] == 0
    assert results_of(job).summary()["results"] == []


@dataclass(frozen=True)
class Paths:
    """A run over every kind of path at once; `prefixed` and `in_bucket` are the two jobs' outputs."""

    prefixed: OcrResults
    in_bucket: OcrResults
    told: tuple[Told, Told]
    seen: Seen


@pytest.fixture(scope="module")
def paths(s3_server: SeaweedServer, tmp_path_factory: pytest.TempPathFactory) -> Paths:
    folder = tmp_path_factory.mktemp("paths")
    name = s3_server.fresh_bucket()
    bucket = s3_server.store(name)
    data = ocr_pages.note(0).as_bytes()
    for key in ("library/vol 1/a #1.png", "elsewhere/b.png"):
        bucket.put(key, data)
    (folder / "local.png").write_bytes(data)
    environment = {**s3_environment(s3_server.server.settings("worker")), **LOOPBACK}
    with serving({"/library/web.png": answer(200, data)}) as (port, seen):
        rows = [
            ("relative", "vol 1/a #1.png"),
            ("s3", f"s3://{name}/elsewhere/b.png"),
            ("absolute", str(folder / "local.png")),
            ("http", f"http://127.0.0.1:{port}/library/web.png"),
        ]
        job = manifest_job(folder / "prefixed", _csv(rows))
        source = {"uri": "manifest.csv", "pathPrefix": f"s3://{name}/library/"}
        job.spec = {"source": {"manifest": source}}
        job.environment = environment
        with_prefix = job.run()
    rows = [("with", f"{name}/library/vol 1/a #1.png"), ("without", "elsewhere/b.png")]
    other = manifest_job(folder / "bucket", _csv(rows))
    other.spec = {"source": {"manifest": {"uri": "manifest.csv", "bucket": name}}}
    other.environment = environment
    return Paths(results_of(job), results_of(other), (with_prefix, other.run()), seen)


def _csv(rows: list[tuple[str, str]]) -> str:
    return "".join(f"{item},{path}\n" for item, path in [("canonical_id", "absolute_image_path"), *rows])


@pytest.mark.s3
def test_path_prefix_is_for_relative_paths_alone(paths: Paths) -> None:
    """Row 40: relative paths get the prefix; s3, http and absolute ones do not."""
    assert paths.told[0].status == 0, paths.told[0].all
    sources = {item: page["source_image_path"] for item, page in paths.prefixed.pages().items()}
    assert sources.keys() == {"relative", "s3", "absolute", "http"}
    assert sources["relative"].endswith("/library/vol 1/a #1.png") and sources["relative"].startswith("s3://")
    assert sources["s3"].endswith("/elsewhere/b.png")
    assert sources["absolute"].endswith("/local.png") and sources["absolute"].startswith("/")
    assert sources["http"].startswith("http://127.0.0.1:")


@pytest.mark.s3
def test_bucket_and_key_paths_are_read_when_a_bucket_is_set(paths: Paths) -> None:
    """Row 40: `bucket/key`, what create_s3_manifest writes, is accepted, and so is the key alone."""
    assert paths.told[1].status == 0, paths.told[1].all
    sources = {item: page["source_image_path"] for item, page in paths.in_bucket.pages().items()}
    assert sources["with"].endswith("/library/vol 1/a #1.png")
    assert sources["without"].endswith("/elsewhere/b.png")
    assert all(source.startswith("s3://") for source in sources.values())


@dataclass(frozen=True)
class Web:
    told: Told
    results: OcrResults
    seen: Seen
    left_on_disk: list[str]


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Web:
    folder, scratch = tmp_path_factory.mktemp("web"), tmp_path_factory.mktemp("scratch")
    data = ocr_pages.note(0).as_bytes()
    book = ocr_pages.pdf_of([ocr_pages.note(1), ocr_pages.note(2)])
    routes = {
        "/good.png": answer(200, data),
        "/busy.png": in_turn(answer(503, Retry_After="0"), answer(429, Retry_After="1"), answer(200, data)),
        "/moved.png": answer(302, Location="/good.png"),
        "/huge.png": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 600000000\r\n\r\n"),
        "/page.html": answer(200, b"<!DOCTYPE html><html><body>Sign in</body></html>"),
        "/book.pdf": answer(200, book),
    }
    with serving(routes) as (port, seen):
        names = [*(path.removeprefix("/") for path in routes), "gone.png"]
        rows = [(name.partition(".")[0], f"http://127.0.0.1:{port}/{name}") for name in names]
        job = manifest_job(folder, _csv(rows))
        job.environment = {**LOOPBACK, "TMPDIR": str(scratch)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tempfile, "tempdir", str(scratch))
            told = job.run()
    return Web(told, results_of(job), seen, [path.name for path in scratch.rglob("*")])


def test_http_images_are_fetched_also_through_redirects_and_busy_servers(web: Web) -> None:
    """Row 41: fetched, with retry as the server asks."""
    assert web.told.status == 0, web.told.all
    want = ocr_pages.note(0).words
    for item in ("good", "busy", "moved"):
        assert ocr_pages.share_of_words_read(want, web.results.page(item)["full_text"]) >= 0.9
    assert web.seen.paths.count("/busy.png") == 4  # refused twice, read, and read again for the report's picture


def test_http_pdf_becomes_one_item_a_page(web: Web) -> None:
    """Row 41: a document behind a URL is no different from one in a bucket."""
    for number in (1, 2):
        text = web.results.page(f"book#p{number:04}")["full_text"]
        assert ocr_pages.share_of_words_read(ocr_pages.note(number).words, text) >= 0.9


@pytest.mark.parametrize(
    ("item", "error_class"), [("huge", "ImageTooLarge"), ("gone", "ImageMissing"), ("page", "NotAnImage")]
)
def test_http_answers_that_are_no_picture_fail_by_class(web: Web, item: str, error_class: str) -> None:
    """Row 41: a size cap; and a sign-in page is not taken for a page."""
    assert web.results.statuses()[item]["error_class"] == error_class


def test_http_images_leave_no_file_behind(web: Web) -> None:
    """Row 41: no temp leak."""
    assert web.left_on_disk == []
