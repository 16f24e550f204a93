"""What hostile input can do to the machine, the output and its readers, tried through the whole command: nothing."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import zstandard
from lxml import etree

from pagemill_cli.testing.command import Told, s3_environment
from pagemill_cli.testing.ocr_job import OcrJobFile, OcrResults
from pagemill_core.errors import ImageTooLarge
from pagemill_core.storage.folder import FolderStore
from pagemill_core.testing import ocr_pages
from pagemill_core.testing.odd_images import ODD_IMAGES
from pagemill_core.testing.seaweed import SeaweedServer
from pagemill_core.testing.vlm_faults import Answer, Behaviour, ChatRequest, Status
from pagemill_core.testing.vlm_server import BadVlmServer
from pagemill_core.testing.web_server import answer, serving

# -- ids --------------------------------------------------------------------------------------------------------------

UNSAFE_IDS = (
    "",
    ".",
    "..",
    "../../etc/x",
    "/etc/passwd",
    "//server/share",
    "a/../../x",
    "a/..",
    "a/./b",
    "a//b",
    "a/",
    "..\\..\\x",
    "a\\..\\..\\x",
    "NUL\0byte",
    "line\nbreak",
    "tab\there",
    "escape\x1b[2J",
    "delete\x7f",
    "next line\x85",
    "half a pair \ud800",
    "x" * 241,
    "é" * 121,
    "x" * 4096,
    "/".join(["folder"] * 600),
)
SAFE_IDS = (
    "a/b",
    "NUL",
    "CON",
    "com1.txt",
    "~root",
    "$HOME",
    "-rf",
    "--help",
    " ",
    " lead",
    "trail ",
    "trail.",
    "...",
    ".hidden",
    ".pagemill/runs/00000001",
    "_SUCCESS",
    "a\\b",
    "C:\\Windows",
    'a:b|c*d?e"f<g>h',
    "%2e%2e%2f%2e%2e%2fetc",
    "..%2f..%2fetc",
    "．．／．．／etc",
    "‥/…",
    "a\u2215b\u2044c",
    "right to left \u202egnp.exe",
    "zero\u200bwidth\u2060joiner\ufeff",
    "e\u0301 and é",
    "ﬁ ligature ſ K",
    "İıI",
    "ｆｕｌｌ",
    "日本語/ページ",
    "🏳️‍🌈 flag",
    "\U000e0041 tag",
    "𝒳" * 40,
    "x" * 200,
    "'; DROP TABLE pages; --",
    "{{7*7}}${jndi:x}",
    "[bold red]markup[/]",
    "<script>alert(1)</script>",
    "#fragment?query=1&x=y",
    "a/" * 80 + "deep",
)


@dataclass(frozen=True)
class Ids:
    told: Told
    results: OcrResults
    new_files: set[str]


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> Ids:
    """One run over every id; `new_files` are those outside the output."""
    root = tmp_path_factory.mktemp("ids")
    folder = root / "down" / "below" / "here"
    folder.mkdir(parents=True)
    (folder / "p.png").write_bytes(ocr_pages.blank_page().as_bytes())
    rows = ({"canonical_id": item, "absolute_image_path": "p.png"} for item in (*UNSAFE_IDS, *SAFE_IDS))
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = OcrJobFile(
        folder,
        {"source": {"manifest": {"uri": "manifest.jsonl"}}, "output": {"uri": "out", "formats": ["json", "text"]}},
    )
    job.write()
    before = _files_outside(root)
    told = job.run()
    return Ids(told, OcrResults(FolderStore(folder / "out")), _files_outside(root) - before)


def _files_outside(root: Path) -> set[str]:
    out = root / "down" / "below" / "here" / "out"
    return {str(path) for path in root.rglob("*") if path.is_file() and not path.is_relative_to(out)} - {
        str(out.parent / "pages.log")
    }


def test_ids_cannot_leave_the_output(ids: Ids) -> None:
    assert ids.told.status == 0, ids.told.all
    assert ids.new_files == set()
    assert not Path("/etc/x_ocr.json").exists()


def test_ids_come_back_unchanged_from_the_dataset(ids: Ids) -> None:
    """All of them, the refused ones too, in the manifest's order. What is no text at all comes back escaped."""
    rows = ids.results.rows()
    want = [item.encode("utf-8", "backslashreplace").decode() for item in (*UNSAFE_IDS, *SAFE_IDS)]
    assert [row["id"] for row in rows] == want


def test_unsafe_ids_fail_by_name_and_write_nothing(ids: Ids) -> None:
    rows = ids.results.rows()[: len(UNSAFE_IDS)]
    assert [(row["id"][:40], row["error_class"]) for row in rows] == [(row["id"][:40], "UnsafeId") for row in rows]
    assert all(row["error_message"].isprintable() for row in rows)


def test_safe_ids_have_their_files_verbatim(ids: Ids) -> None:
    want = {f"ocr_results/{item}{suffix}" for item in SAFE_IDS for suffix in ("_ocr.json", ".txt")}
    assert set(ids.results.listing("ocr_results/")) == want
    assert {page["canonical_id"] for page in ids.results.pages().values()} == set(SAFE_IDS)


# -- image bombs ------------------------------------------------------------------------------------------------------

BOMBS = [odd for odd in ODD_IMAGES if odd.want is ImageTooLarge]
MOST_BYTES = 320 << 20  # a tesseract process takes 100 MiB; the smallest of the bombs would take 890


@contextmanager
def peak_of_children() -> Iterator[list[int]]:
    """Watch this process's new children; the list holds the highest resident size that any of them ever had, bytes."""
    peak = [0]
    earlier = {pid for pid, _ in _peaks()}  # servers that other tests share
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            peak[0] = max(peak[0], 0, *(size for pid, size in _peaks() if pid not in earlier))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def _peaks() -> Iterator[tuple[str, int]]:
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            facts = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except OSError:
            continue
        if int(facts["PPid"]) == os.getpid() and "VmHWM" in facts:
            yield status.parent.name, int(facts["VmHWM"].split()[0]) << 10


def test_image_bombs_are_refused_before_they_unfold(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    rows = ["canonical_id,absolute_image_path\n"]
    for odd in BOMBS:
        suffix = "pdf" if odd.name.startswith("pdf") else "img"
        (tmp_path / "pages" / f"{odd.name}.{suffix}").write_bytes(odd.make())
        rows.append(f"{odd.name},pages/{odd.name}.{suffix}\n")
    # The last one is read, so that the process is still there to be asked for its peak.
    (tmp_path / "pages" / "z.png").write_bytes(ocr_pages.page(0).as_bytes())
    (tmp_path / "m.csv").write_text("".join([*rows, "z,pages/z.png\n"]))
    spec = {"source": {"manifest": {"uri": "m.csv"}}, "sharding": {"itemsPerShard": 100}}
    job = OcrJobFile(tmp_path, spec)
    with peak_of_children() as peak:
        told = job.run()
    assert told.status == 0, told.all
    assert told.json["failedByClass"] == {"ImageTooLarge": len(BOMBS)}
    assert len(BOMBS) >= 8
    assert 20 << 20 < peak[0] < MOST_BYTES, f"{peak[0] >> 20} MiB"


# -- secrets ----------------------------------------------------------------------------------------------------------

API_KEY = "sk-or-v1-PLANTED0api0key0d41d8cd98f00b204"
URL_PASSWORD = "PLANTED0url0password"
URL_SIGNATURE = "PLANTED0url0signature0e9800998ecf8427e"


def searchable(key: str, data: bytes) -> str:
    """An object as text, whatever it is packed in."""
    if data.startswith(b"PAR1"):
        file = pq.ParquetFile(io.BytesIO(data))
        return repr(file.read().to_pylist()) + repr(file.metadata.metadata)
    if key.endswith(".zst"):
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data.decode("utf-8", "replace")


def holders(results: OcrResults, secret: str) -> list[str]:
    return [key for key, data in results.objects() if secret in searchable(key, data)]


@pytest.mark.s3
def test_secrets_of_stores_and_urls_stay_out_of_results_logs_and_messages(
    tmp_path: Path, s3_server: SeaweedServer
) -> None:
    environment = s3_environment(s3_server.server.settings("worker"))
    name = s3_server.fresh_bucket()
    query = f"X-Amz-Signature={URL_SIGNATURE}&X-Amz-Credential=me"
    with serving({"/good.png": answer(200, ocr_pages.page(0).as_bytes()), "/bad.png": answer(500)}) as (port, _):
        names = ("good.png", "bad.png", "gone.png")
        urls = [f"http://me:{URL_PASSWORD}@127.0.0.1:{port}/{name}?{query}" for name in names]
        urls.append(f"http://me:{URL_PASSWORD}@10.0.0.1/x.png?{query}")
        rows = "".join(f"u{number},{url}\n" for number, url in enumerate(urls))
        (tmp_path / "m.csv").write_text(f"canonical_id,absolute_image_path\n{rows}")
        spec = {"source": {"manifest": {"uri": "m.csv"}}, "output": {"uri": f"s3://{name}/out"}}
        job = OcrJobFile(tmp_path, spec, environment={**environment, "PAGEMILL_ALLOWED_HOSTS": "127.0.0.1"})
        told = job.run()
        text = job.run(output="text")
    results = OcrResults(s3_server.store(name, "out"))
    assert told.status == 0, told.all
    assert told.json["items"] == {"planned": 4, "succeeded": 1, "failed": 3, "skipped": 0}
    said = told.all + text.all + job.log.read_text()
    store_secret = environment["PAGEMILL_S3_SECRET_KEY"]
    for secret in (store_secret, URL_PASSWORD, URL_SIGNATURE):
        assert secret not in said
    assert holders(results, store_secret) == []
    # To read a page again its whole address is needed: Pagemill's own tables hold it, and nothing else may.
    for secret in (URL_PASSWORD, URL_SIGNATURE):
        found = holders(results, secret)
        assert [key for key in found if not key.startswith(".pagemill/") or not key.endswith(".parquet")] == []
        for key in found:
            assert _columns_with(secret, results.raw(key)) <= {"uri"}


def _columns_with(secret: str, data: bytes) -> set[str]:
    rows = pq.read_table(io.BytesIO(data)).to_pylist()
    return {name for row in rows for name, value in row.items() if secret in str(value)}


def test_api_key_stays_out_of_everything_also_when_the_endpoint_echoes_it(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    for number in range(3):
        (tmp_path / "pages" / f"p{number}.png").write_bytes(ocr_pages.page(number).as_bytes())

    def script(request: ChatRequest) -> Behaviour:
        if request.number == 0:
            return Status(400, message=f"this page is refused for {request.authorization}")
        return Answer(json.dumps({"text_regions": [{"text": "A page."}]}))

    with BadVlmServer(script, api_key=API_KEY) as server:
        job = OcrJobFile(tmp_path, _vlm_spec(server), environment={"OPENROUTER_API_KEY": f"{API_KEY}\n"})
        told = job.run()
        text = job.run(output="text")
        (tmp_path / "refused").mkdir()
        other = OcrJobFile(tmp_path / "refused", _vlm_spec(server, str(tmp_path / "pages")))
        refused = other.run("--api-key", f"{API_KEY}-wrong")
    assert told.status == 0, told.all
    assert told.json["items"]["failed"] == 1
    assert refused.status == 77, refused.all
    results = OcrResults(FolderStore(tmp_path / "out"))
    assert "refused" in results.statuses()["p0"]["error_message"]
    for said in (told.all, text.all, refused.all, job.log.read_text(), other.log.read_text()):
        assert "PLANTED" not in said
    for place in (tmp_path / "out", tmp_path / "refused" / "out"):
        assert holders(OcrResults(FolderStore(place)), "PLANTED") == []


def _vlm_spec(server: BadVlmServer, pages: str = "pages") -> dict[str, Any]:
    return {
        "source": {"images": {"uri": pages}},
        "engine": {
            "name": "vlm",
            "model": "some/model",
            "endpoint": server.base_url,
            "options": {"maxInFlight": 1, "patienceSeconds": 5},
        },
        "output": {"uri": "out", "formats": ["json", "hocr", "alto", "text"]},
    }


# -- markup -----------------------------------------------------------------------------------------------------------

HOSTILE = (
    "<script>window.planted=1</script>",
    '"><img src=x onerror=planted()>',
    "</script></style></textarea></title><svg onload=planted()>",
    "]]><!-- planted --><![CDATA[",
    "javascript:planted()",
    "&lt;b&gt; planted &amp;amp;",
    "\u202eplanted\u0007",
    "{{planted}} ${planted} <%= planted %>",
)


@dataclass
class _Page(HTMLParser):
    """What a browser would make of a document: elements with their attributes, scripts, and all text."""

    scripts: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    _inside: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        (self.scripts if self._inside in ("script", "style") else self.text).append(data)


@pytest.fixture(scope="module")
def marked_up(tmp_path_factory: pytest.TempPathFactory) -> OcrResults:
    """A run whose page was answered with markup, under an id that is markup too."""
    folder = tmp_path_factory.mktemp("markup")
    (folder / "pages").mkdir()
    (folder / "pages" / "<img src=x onerror=planted()>.png").write_bytes(ocr_pages.page(0).as_bytes())
    regions = [{"text": text, "location": text} for text in HOSTILE]
    reply = Answer(json.dumps({"text_regions": regions}))
    with BadVlmServer(lambda _: reply) as server:
        told = OcrJobFile(folder, _vlm_spec(server)).run()
    assert told.status == 0, told.all
    return OcrResults(FolderStore(folder / "out"))


def test_answers_with_markup_stay_text_in_the_report(marked_up: OcrResults) -> None:
    page = _Page()
    page.feed(marked_up.raw("report.html").decode())
    assert [script for script in page.scripts if "planted" in script] == []
    assert [name for _, name, _ in page.attributes if name.startswith("on")] == []
    assert {tag for tag, name, value in page.attributes if "planted" in value and name in ("src", "href")} <= {"a"}
    assert all(value.startswith("./") for _, name, value in page.attributes if name == "href" and "planted" in value)
    text = " ".join(page.text)
    for hostile in HOSTILE[:6]:
        assert hostile in text


def test_answers_with_markup_stay_text_in_every_view(marked_up: OcrResults) -> None:
    item = "<img src=x onerror=planted()>"
    assert [region["text"] for region in marked_up.page(item)["text_regions"]][:6] == list(HOSTILE[:6])
    for suffix in (".hocr", ".alto.xml"):
        root = etree.fromstring(marked_up.raw(f"ocr_results/{item}{suffix}"))
        names = {etree.QName(element).localname.lower() for element in root.iter() if isinstance(element.tag, str)}
        assert names.isdisjoint({"img", "svg", "b"})
        scripts = [element for element in root.iter("{*}script") if "planted" in "".join(element.itertext())]
        assert scripts == []
    assert "window.planted=1" in marked_up.raw(f"ocr_results/{item}.txt").decode()
