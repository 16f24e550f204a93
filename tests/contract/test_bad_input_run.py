"""Everything that can be wrong with what a user gives, through the command: a sentence, what to do, its own status.

Never a traceback, and nothing lost: what was there before stays, what can be read is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pagemill_cli.testing.command import Told, run_command, s3_environment
from pagemill_cli.testing.forgetful_s3 import forgetful_s3
from pagemill_cli.testing.ocr_job import OcrJobFile, OcrResults
from pagemill_core.clock import SystemClock
from pagemill_core.storage.folder import FolderStore
from pagemill_core.testing import ocr_pages
from pagemill_core.testing.fault_proxy import FaultProxy, ProxyRates, ProxyRule
from pagemill_core.testing.seaweed import SeaweedServer
from pagemill_core.testing.web_server import answer, serving
from pagemill_core.work.conditional import Writer
from pagemill_core.work.ledger import Ledger, Owner, WorkRequest


def check_refusal(told: Told, status: int, *words: str) -> None:
    """The command ended with `status` and a message that holds `words`, in plain language."""
    assert told.status == status, told.all
    assert told.out == ""
    assert "Traceback" not in told.err
    for word in words:
        assert word in told.err, told.err


def job_with_page(folder: Path, **spec: Any) -> OcrJobFile:
    """A job of one page, `pages/p.png`."""
    (folder / "pages").mkdir(parents=True, exist_ok=True)
    (folder / "pages" / "p.png").write_bytes(ocr_pages.note(0).as_bytes())
    return OcrJobFile(folder, {"source": {"images": {"uri": "pages"}}, **spec})


def results_of(job: OcrJobFile) -> OcrResults:
    return OcrResults(FolderStore(job.folder / "out"))


# -- the job's file ---------------------------------------------------------------------------------------------------

IMAGES = {"images": {"uri": "pages"}}
BAD_SPECS: dict[str, tuple[Mapping[str, Any], tuple[str, ...]]] = {
    "unknown field": ({"source": IMAGES, "colour": "red"}, ("spec.colour",)),
    "misspelt field": ({"source": {"images": {"uri": "pages", "recursve": True}}}, ("spec.source.images.recursve",)),
    "wrong type": ({"source": IMAGES, "maxItems": "many"}, ("spec.maxItems",)),
    "two sources": ({"source": {**IMAGES, "manifest": {"uri": "m.csv"}}}, ("spec.source", "exactly one")),
    "no source": ({"source": {}}, ("spec.source", "exactly one")),
    "bad scheme": ({"source": {"images": {"uri": "ftp://host/pages"}}}, ("spec.source.images.uri", "s3://bucket/key")),
    "negative count": ({"source": IMAGES, "maxItems": -1}, ("spec.maxItems",)),
    "budget no number": ({"source": IMAGES, "budget": {"maxCost": "lots"}}, ("spec.budget.maxCost", "decimal number")),
    "budget a float": ({"source": IMAGES, "budget": {"maxCost": 2.5}}, ("spec.budget.maxCost",)),
    "unknown engine": ({"source": IMAGES, "engine": {"name": "magic"}}, ("spec.engine.name", "rapidocr")),
    "unknown format": ({"source": IMAGES, "output": {"uri": "out", "formats": ["docx"]}}, ("spec.output.formats",)),
    "climbing prefix": ({"source": IMAGES, "output": {"uri": "out", "prefix": "../up"}}, ("spec.output.prefix",)),
    "unknown option": (
        {"source": IMAGES, "engine": {"name": "tesseract", "options": {"speed": 9}}},
        ("engine.options.speed", "known options"),
    ),
    "option out of range": (
        {"source": IMAGES, "engine": {"name": "tesseract", "options": {"psm": 99}}},
        ("engine.options.psm",),
    ),
}


@pytest.mark.parametrize("case", BAD_SPECS)
def test_spec_that_cannot_be_done_is_refused_with_its_path(tmp_path: Path, case: str) -> None:
    spec, words = BAD_SPECS[case]
    told = job_with_page(tmp_path, **spec).run()
    check_refusal(told, 78, "InvalidSpec: ", *words)
    assert not (tmp_path / "out").exists()


BAD_FILES = {
    "no yaml": ("spec: [unclosed", "job.yaml:1: is not YAML"),
    "empty": ("", "holds no job"),
    "another kind": ("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n", "kind"),
    "a list": ("- a\n- b\n", "is no job"),
    "binary": ("\x00\x01\x02", "yaml"),
    "same key twice": ("kind: OcrJob\nkind: OcrJob\n", "kind"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_file_that_is_no_job_is_refused(tmp_path: Path, case: str) -> None:
    text, word = BAD_FILES[case]
    (tmp_path / "job.yaml").write_text(text)
    check_refusal(run_command("run", tmp_path / "job.yaml"), 78, "InvalidSpec: ", word)


def test_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    check_refusal(run_command("run", tmp_path / "no.yaml"), 78, "no.yaml: there is no such file", "→ ")


def test_model_that_nobody_knows_is_refused_with_those_there_are(tmp_path: Path) -> None:
    job = {
        "apiVersion": "pagemill.dev/v1alpha1",
        "kind": "EmbeddingJob",
        "metadata": {"name": "vectors"},
        "spec": {"source": {"images": {"uri": "x"}}, "visual": {"model": {"name": "m"}}, "output": {"uri": "out"}},
    }
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    told = run_command("run", tmp_path / "job.yaml")
    check_refusal(told, 78, "no model is called m", "→ ", "all-minilm-l6-v2")


@pytest.mark.parametrize("words", [["run"], ["run", "a.yaml", "--processes", "0"], ["fly"], ["run", "a", "--no-such"]])
def test_command_line_that_makes_no_sense_is_told_as_usage(words: list[str]) -> None:
    check_refusal(run_command(*words), 64, "Usage: ")


def test_setting_that_makes_no_sense_is_named_without_its_value(tmp_path: Path) -> None:
    job = job_with_page(tmp_path)
    job.environment = {"PAGEMILL_PRICE_PER_HOUR": "a-secret"}
    told = job.run()
    check_refusal(told, 78, "PAGEMILL_PRICE_PER_HOUR", "→ ")
    assert "a-secret" not in told.err


# -- the store --------------------------------------------------------------------------------------------------------


def s3_job(folder: Path, uri: str, environment: Mapping[str, str]) -> OcrJobFile:
    job = job_with_page(folder, output={"uri": uri})
    job.environment = environment
    return job


@pytest.mark.s3
def test_bucket_that_does_not_exist_is_named(tmp_path: Path, s3_server: SeaweedServer) -> None:
    environment = s3_environment(s3_server.server.settings("worker"))
    told = s3_job(tmp_path, "s3://no-such-bucket-here/out", environment).run()
    check_refusal(told, 78, "no-such-bucket-here", "→ ")


@pytest.mark.s3
def test_credentials_that_may_not_write_are_told_what_to_grant(tmp_path: Path, s3_server: SeaweedServer) -> None:
    bucket = s3_server.fresh_bucket()
    environment = s3_environment(s3_server.server.settings("reader"))
    told = s3_job(tmp_path, f"s3://{bucket}/out", environment).run()
    check_refusal(told, 77, "AccessDenied: ", bucket, "→ ")
    assert OcrResults(s3_server.store(bucket)).listing() == []


@pytest.mark.s3
def test_wrong_secret_key_is_access_denied_and_not_shown(tmp_path: Path, s3_server: SeaweedServer) -> None:
    environment = s3_environment(s3_server.server.settings("worker"))
    bucket = s3_server.fresh_bucket()
    told = s3_job(tmp_path, f"s3://{bucket}/out", {**environment, "PAGEMILL_S3_SECRET_KEY": "not-the-secret"}).run()
    check_refusal(told, 77, "AccessDenied: ", "→ ")
    assert "not-the-secret" not in told.err


@pytest.mark.s3
def test_endpoint_that_does_not_answer_is_named(
    tmp_path: Path, s3_server: SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SystemClock, "sleep", lambda *_: None)  # the client asks again for 15 s
    environment = s3_environment(s3_server.server.settings("worker"))
    with serving({}) as (port, _):
        pass  # free again: nobody listens there
    told = s3_job(tmp_path, "s3://pages/out", {**environment, "PAGEMILL_S3_ENDPOINT": f"http://127.0.0.1:{port}"}).run()
    check_refusal(told, 75, "StoreUnavailable: ", f"127.0.0.1:{port}", "→ ")


def test_store_without_conditional_writes_is_refused_before_anything_is_committed(
    tmp_path: Path,
) -> None:
    objects: dict[str, bytes] = {}
    with forgetful_s3(objects) as endpoint:
        environment = {
            "PAGEMILL_S3_ENDPOINT": endpoint,
            "PAGEMILL_S3_ACCESS_KEY": "any",
            "PAGEMILL_S3_SECRET_KEY": "any",
        }
        told = s3_job(tmp_path, "s3://pages/out", environment).run()
    check_refusal(told, 76, "StoreUnsuitable: ", "s3://pages/out", "→ ", "conditional writes")
    assert [path for path in objects if "/commit/" in path or "ocr_results" in path] == []


@pytest.mark.s3
def test_bucket_that_may_not_be_read_ends_the_run_and_blames_no_page(tmp_path: Path, s3_server: SeaweedServer) -> None:
    bucket = s3_server.fresh_bucket()
    s3_server.store(bucket).put("p.png", ocr_pages.note(0).as_bytes())
    (tmp_path / "manifest.csv").write_text(f"{HEADER}p,s3://{bucket}/p.png\n")
    job = OcrJobFile(tmp_path, {"source": {"manifest": {"uri": "manifest.csv"}}})
    environment = s3_environment(s3_server.server.settings("worker"))
    with FaultProxy(s3_server.endpoint, [ProxyRule(ProxyRates(denied=1.0))]) as proxy:
        job.environment = {**environment, "PAGEMILL_S3_ENDPOINT": proxy.endpoint}
        told = job.run()
    check_refusal(told, 77, "AccessDenied: ", bucket, "→ ")
    job.environment = environment
    again = job.run()
    assert again.status == 0, again.all
    assert again.json["items"]["succeeded"] == 1


def test_output_on_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    told = job_with_page(tmp_path).run()
    check_refusal(told, 76, "a file stands where a folder must be", "→ ")
    assert (tmp_path / "out").read_text() == "mine"


# -- the source -------------------------------------------------------------------------------------------------------

HEADER = "canonical_id,absolute_image_path\n"
BAD_MANIFESTS: dict[str, tuple[bytes | None, tuple[str, ...]]] = {
    "missing": (None, ("manifest.csv", "→ ")),
    "empty file": (b"", ("manifest.csv",)),
    "no such column": (b"id,path\na,b\n", ("canonical_id",)),
    "column twice": (b"canonical_id,canonical_id,absolute_image_path\na,b,c\n", ("canonical_id",)),
    "not utf-8": (HEADER.encode() + b"a,p.png\nb\xe9,p.png\n", ("line 3", "UTF-8")),
    "ragged row": (HEADER.encode() + b"a,p.png\nb,p.png,surplus\n", ("line 3",)),
    "short row": (HEADER.encode() + b"a,p.png\nb\n", ("line 3",)),
    "open quote": (HEADER.encode() + b'a,p.png\n"b,p.png\nc,p.png\n', ("line 3",)),
    "utf-16": ((HEADER + "a,p.png\n").encode("utf-16"), ("UTF-8",)),
}


@pytest.mark.parametrize("case", BAD_MANIFESTS)
def test_manifest_that_cannot_be_read_is_refused_with_its_first_bad_line(tmp_path: Path, case: str) -> None:
    data, words = BAD_MANIFESTS[case]
    job = job_with_page(tmp_path, source={"manifest": {"uri": "manifest.csv", "pathPrefix": "pages"}})
    if data is not None:
        (tmp_path / "manifest.csv").write_bytes(data)
    check_refusal(job.run(), 65, "Source: ", *words)
    assert results_of(job).listing("ocr_results/") == []
    # Nothing is in the way of the mended manifest.
    (tmp_path / "manifest.csv").write_text(HEADER)
    told = job.run()
    assert told.status == 0, told.all


def test_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    told = job_with_page(tmp_path, source={"images": {"uri": "pagse"}}).run()
    check_refusal(told, 65, "Source: ", "pagse", "→ ")


def test_listing_without_a_picture_completes_with_0_items_and_says_so(tmp_path: Path) -> None:
    job = job_with_page(tmp_path, source={"images": {"uri": "pages", "include": ["*.bmp"]}})
    told = job.run()
    assert told.status == 0, told.all
    assert told.json["items"]["planned"] == 0
    assert told.json["warnings"], "an empty listing is more often a mistake than a wish"


def test_source_with_its_results_among_its_pages_is_refused(tmp_path: Path) -> None:
    told = job_with_page(tmp_path, output={"uri": "pages", "prefix": ""}).run()
    check_refusal(told, 78, "spec.output.prefix", "→ ")


# -- somebody else's output -------------------------------------------------------------------------------------------


def test_output_that_another_run_holds_is_left_alone_and_its_holder_named(tmp_path: Path) -> None:
    job = job_with_page(tmp_path)
    store = FolderStore(tmp_path / "out")
    holder = Ledger(Writer(store, SystemClock()), Owner("someone", "nightly on another machine"))
    holder.adopt(WorkRequest(work_key="f" * 64, kind="OcrJob"))
    # A run that committed something may not be pushed aside.
    store.put(".pagemill/00000001-ffffffff/commit/00000/00000000", b"{}")
    before = results_of(job).tokens()
    told = job.run()
    check_refusal(told, 75, "OutputBusy: ", "nightly on another machine", "→ ", "release")
    assert results_of(job).tokens() == before


def test_output_of_another_fingerprint_is_refused_and_nothing_overwritten(tmp_path: Path) -> None:
    job = job_with_page(tmp_path)
    assert job.run().status == 0
    before = results_of(job).tokens("ocr_results/")
    job.spec = {**job.spec, "engine": {"name": "tesseract", "options": {"psm": 6}}}
    told = job.run()
    check_refusal(told, 73, "OutputInUse: ", "psm", "→ ", "onConflict")
    assert results_of(job).tokens("ocr_results/") == before
    job.spec = {**job.spec, "output": {"uri": str(tmp_path / "out"), "onConflict": "Replace"}}
    told = job.run()
    assert told.status == 0, told.all
    assert told.json["worked"] is True


# -- addresses --------------------------------------------------------------------------------------------------------


def test_urls_into_private_networks_are_forbidden_and_never_asked(tmp_path: Path) -> None:
    with serving({"/p.png": answer(200, ocr_pages.note(0).as_bytes())}) as (port, seen):
        urls = (
            f"http://127.0.0.1:{port}/p.png",
            f"http://localhost:{port}/p.png",
            f"http://[::ffff:127.0.0.1]:{port}/p.png",
            f"http://2130706433:{port}/p.png",
            "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
            "http://10.0.0.7/p.png",
            "http://[fd00:ec2::254]/p.png",
        )
        rows = "".join(f"u{number},{url}\n" for number, url in enumerate(urls))
        (tmp_path / "manifest.csv").write_text(HEADER + rows)
        job = OcrJobFile(tmp_path, {"source": {"manifest": {"uri": "manifest.csv"}}})
        told = job.run()
    assert told.status == 0, told.all
    assert told.json["failedByClass"] == {"ForbiddenAddress": len(urls)}
    assert seen.requests == []
