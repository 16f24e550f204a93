"""The installed `pagemill` command on real pages and real stores: what people type, in the order they type it."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image, ImageDraw, ImageFont

from pagemill_cli.local.run import open_ledger
from pagemill_cli.main import main
from pagemill_cli.testing.command import Told
from pagemill_core.clock import SystemClock
from pagemill_core.storage.folder import FolderStore
from pagemill_core.storage.store import ObjectStore
from pagemill_core.testing.seaweed import SeaweedServer
from pagemill_core.work.conditional import Writer
from pagemill_core.work.ledger import WorkRequest

PAGEMILL = str(Path(sys.executable).parent / "pagemill")
TIMEOUT_S = 200


@dataclass
class Shell:
    """Types commands in a folder. None of them may ever show a traceback.

    Calling it runs the command inside this process, which spares a second of imports each; `process` and `start` run
    the installed command.
    """

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *words: str, **variables: str) -> Told:
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        with (
            contextlib.chdir(self.folder),
            mock.patch.dict(os.environ, self.environment(variables)),
            mock.patch.multiple(sys, argv=["pagemill", *words], stdout=out, stderr=err, stdin=io.StringIO()),
            pytest.raises(SystemExit) as left,
        ):
            main()
        told = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
        return Told(int(left.value.code or 0), *told)

    def process(self, *words: str) -> Told:
        with self.start(*words) as done:
            out, err = done.communicate(timeout=TIMEOUT_S)
        assert "Traceback" not in err, err
        return Told(done.returncode, out, err)

    @contextlib.contextmanager
    def start(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """The command, running; killed when the test leaves early."""
        with subprocess.Popen(
            [PAGEMILL, *words],
            cwd=self.folder,
            env=self.environment({}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        return {**os.environ, "COLUMNS": "200", **self.variables, **variables}


def page(text: str, lines: int = 1) -> bytes:
    image = Image.new("L", (900, 80 + 50 * lines), 255)
    font = ImageFont.load_default(32)
    for line in range(lines):
        ImageDraw.Draw(image).text((30, 30 + 50 * line), text, fill=0, font=font)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def manifest(rows: Mapping[str, str]) -> bytes:
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(["canonical_id", "absolute_image_path", "shelf"])
    table.writerows([item, path, "B7"] for item, path in rows.items())
    return out.getvalue().encode()


def job(name: str = "small", **spec: Any) -> dict[str, Any]:
    defaults = {
        "source": {"manifest": {"uri": "m.csv"}},
        "engine": {"name": "tesseract"},
        "output": {"uri": "out", "formats": ["json", "text"]},
        "sharding": {"itemsPerShard": 2},
        "retries": {"maxFailedItems": "100%"},
        "workers": {"processesPerPod": 1},
    }
    return {
        "apiVersion": "pagemill.dev/v1alpha1",
        "kind": "OcrJob",
        "metadata": {"name": name},
        "spec": {**defaults, **spec},
    }


def write_jobs(folder: Path, *jobs: Mapping[str, Any], name: str = "job.yaml") -> None:
    (folder / name).write_text(yaml.safe_dump_all(jobs), encoding="utf-8")


ROWS = {"book/p 1#é": "p1.png", "book/p2": "p2.png", "lost": "lost.png", "broken": "broken.png", "../up": "p1.png"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose job has run once: two pages read, one missing, one broken, one with an unsafe id."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "p1.png").write_bytes(page("the mill stood"))
    (folder / "p2.png").write_bytes(page("at the river"))
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "m.csv").write_bytes(manifest(ROWS))
    write_jobs(folder, job())
    told = Shell(folder).process("run", "job.yaml", "-q")
    assert told.status == 0, told.err
    return folder


@pytest.fixture
def shell(finished: Path, tmp_path: Path) -> Shell:
    """A copy of the finished folder to type in."""
    folder = tmp_path / "work"
    shutil.copytree(finished, folder)
    return Shell(folder)


def test_plan_says_what_a_run_would_do_and_writes_nothing(shell: Shell) -> None:
    shutil.rmtree(shell.folder / "out")

    told = shell("plan", "job.yaml", "--sample", "2", "--price-per-hour", "0.36", "-o", "json")

    assert told.status == 0
    plan = told.json
    assert (plan["items"], plan["shards"], plan["failedByClass"]) == (5, 3, {"UnsafeId": 1})
    assert plan["sample"]["items"] == 2
    assert plan["estimate"]["sampled"] is True
    assert float(plan["estimate"]["poolCost"]) == pytest.approx(plan["estimate"]["elapsedSeconds"] / 10_000, abs=1e-4)
    assert plan["standing"] == "nothing has been run on this output yet"
    assert not (shell.folder / "out").exists()


def test_run_again_does_nothing_and_says_so(shell: Shell) -> None:
    told = shell("run", "job.yaml", "-q", "-o", "json")

    assert told.status == 0
    assert told.json["worked"] is False
    assert told.json["items"]["succeeded"] == 2
    assert "would do nothing" in shell("plan", "job.yaml").out


def test_status_and_runs_tell_how_it_went_by_file_and_by_uri(shell: Shell) -> None:
    by_file = shell("status", "job.yaml", "-o", "json").json
    by_uri = shell("status", str(shell.folder / "out"), "-o", "json").json
    watched = shell("status", "job.yaml", "--watch")

    assert by_file == by_uri
    assert (by_file["phase"], by_file["failedByClass"]) == (
        "Succeeded",
        {"ImageMissing": 1, "NotAnImage": 1, "UnsafeId": 1},
    )
    assert "CompletedWithFailures" in watched.out
    assert [run["run"] for run in shell("runs", "job.yaml", "-o", "json").json] == [by_file["run"]]


@pytest.mark.parametrize(
    ("words", "status", "want_out", "want_err"),
    [
        (["book/p 1#é", "job.yaml"], 0, "the mill stood", ""),
        (["book/p2", "out", "--format", "alto"], 0, 'CONTENT="river"', ""),
        (["lost", "job.yaml"], 70, "", "ImageMissing: "),
        (["../up", "job.yaml"], 70, "", "UnsafeId: "),
        (["nowhere", "job.yaml"], 75, "", "no run on"),
        (["book/p2", "job.yaml", "-f", "pdf"], 78, "", "add pdf to output.formats"),
    ],
    ids=["view", "format-not-written", "failed", "unsafe-id", "unknown", "needs-the-picture"],
)
def test_cat_prints_a_page_or_says_why_not(
    finished: Path, words: list[str], status: int, want_out: str, want_err: str
) -> None:
    told = Shell(finished)("cat", *words)

    assert told.status == status
    assert want_out in told.out
    assert want_err in told.err


def test_ids_that_no_terminal_can_show_are_printed_escaped(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"canonical_id": "half \\ud800", "absolute_image_path": "p.png"}\n', "utf-8")
    write_jobs(tmp_path, job(source={"manifest": {"uri": "m.jsonl"}}))
    shell = Shell(tmp_path)

    assert shell("plan", "job.yaml", "-o", "json").json["failures"][0]["class"] == "UnsafeId"
    assert "half \\ud800" in shell("plan", "job.yaml").out
    assert shell("run", "job.yaml", "-q").status == 0
    assert shell("cat", "half \udc80", "job.yaml").status == 78


def test_retry_does_exactly_the_failed_items_and_keeps_the_rest(shell: Shell) -> None:
    shutil.rmtree(shell.folder / "out")
    assert shell("run", "job.yaml", "-q").status == 0
    kept = (shell.folder / "out/ocr_results/book/p2_ocr.json").read_bytes()
    (shell.folder / "lost.png").write_bytes(page("found again"))

    told = shell.process("retry", "--failed", "job.yaml", "-q", "-o", "json")

    assert told.status == 0, told.err
    assert told.json["items"] == {"planned": 2, "succeeded": 1, "failed": 1, "skipped": 0}  # UnsafeId is left out
    assert "found again" in shell("cat", "lost", "job.yaml").out
    assert (shell.folder / "out/ocr_results/book/p2_ocr.json").read_bytes() == kept
    again = shell("run", "job.yaml", "-q", "-o", "json")
    assert (again.status, again.json["worked"]) == (0, False)
    rows = pq.read_table(shell.folder / "out/dataset/run=00000002/part-00000.parquet").to_pylist()
    assert {(row["id"], row["status"], row["meta_shelf"]) for row in rows} == {
        ("lost", "succeeded", "B7"),
        ("broken", "failed", "B7"),
    }
    assert shell("verify", "job.yaml").status == 0

    (shell.folder / "broken.png").write_bytes(page("mended"))
    last = shell("retry", "--failed", "job.yaml", "-q", "-o", "json")
    assert last.json["items"] == {"planned": 1, "succeeded": 1, "failed": 0, "skipped": 0}
    none = shell("retry", "--failed", "job.yaml", "-q", "-o", "json")
    assert (none.status, none.json["outcome"]) == (0, "NothingToRetry")


def test_verify_finds_damage_and_repair_mends_it(shell: Shell) -> None:
    view = shell.folder / "out/ocr_results/book/p2_ocr.json"
    whole = view.read_bytes()
    view.write_bytes(whole[:-3])
    (shell.folder / "out/ocr_results/book/p 1#é.txt").unlink()

    found = shell("verify", "job.yaml", "-o", "json")
    assert found.status == 70
    assert sorted(problem["fault"] for problem in found.json["runs"][0]["problems"]) == ["ViewDamaged", "ViewMissing"]
    assert "pagemill verify --repair out" in shell("verify", "out").out

    mended = shell("verify", "out", "--repair", "-o", "json")
    assert (mended.status, mended.json["ok"], mended.json["repaired"]) == (0, True, 2)
    assert view.read_bytes() == whole


def test_gc_frees_leftovers_and_leaves_a_sound_output(shell: Shell) -> None:
    told = shell("gc", "out", "--dry-run", "-o", "json").json
    assert told["objects"] > 0

    assert shell("gc", "out").status == 0
    assert shell("gc", "out", "-o", "json").json["objects"] == 0
    assert shell("verify", "out").status == 0
    assert shell("run", "job.yaml", "-q", "-o", "json").json["worked"] is False


@pytest.mark.s3
def test_everything_works_from_s3_to_s3_and_tells_no_secret(s3_server: SeaweedServer, tmp_path: Path) -> None:
    settings = s3_server.server.settings("worker")
    secret = settings.secret_key.get_secret_value()
    bucket = s3_server.fresh_bucket()
    store = s3_server.store(bucket)
    store.put("pages/p1.png", page("from a bucket"))
    store.put("pages/p2.png", page("and back"))
    store.put("m.csv", manifest({"a/1": "p1.png", "a/2": "p2.png", "gone": "gone.png"}))
    source = {"manifest": {"uri": f"s3://{bucket}/m.csv", "pathPrefix": f"s3://{bucket}/pages"}}
    write_jobs(tmp_path, job(source=source, output={"uri": f"s3://{bucket}/out", "formats": ["text"]}))
    shell = Shell(
        tmp_path,
        {
            "PAGEMILL_S3_ENDPOINT": settings.endpoint,
            "PAGEMILL_S3_REGION": settings.region,
            "PAGEMILL_S3_ACCESS_KEY": settings.access_key,
            "PAGEMILL_S3_SECRET_KEY": secret,
        },
    )
    uri = f"s3://{bucket}/out"

    told = [shell("plan", "job.yaml"), shell.process("run", "job.yaml", "-o", "json"), shell.process("status", uri)]
    assert [each.status for each in told] == [0, 0, 0]
    assert told[1].json["items"]["succeeded"] == 2
    store.delete("out/ocr_results/a/1.txt")
    told += [shell("verify", uri), shell("verify", uri, "--repair"), shell("cat", "a/1", uri), shell("gc", uri)]
    store.put("pages/gone.png", page("late"))
    told += [shell("retry", "--failed", "job.yaml", "-q"), shell("runs", uri), shell("verify", uri)]
    assert [each.status for each in told[3:]] == [70, 0, 0, 0, 0, 0, 0]
    assert told[5].out == "from a bucket\n"

    wrong = {"PAGEMILL_S3_SECRET_KEY": "wrong-" + secret}
    told += [shell(command, uri, **wrong) for command in ("status", "verify")]
    assert [each.status for each in told[-2:]] == [77, 77]
    assert not any(secret in each.out + each.err for each in told)
    assert not _holds(store, secret)


def _holds(store: ObjectStore, text: str) -> bool:
    return any(text.encode() in store.get(info.key).data for info in store.list(""))


PLANTED = ("hunter2-password", "planted-signature", "sk-planted-api-key", "planted-s3-secret")
SECRETS = {"OPENROUTER_API_KEY": PLANTED[2], "PAGEMILL_S3_ACCESS_KEY": "AKIA", "PAGEMILL_S3_SECRET_KEY": PLANTED[3]}


def test_no_command_prints_a_planted_secret(shell: Shell) -> None:
    url = f"http://reader:{PLANTED[0]}@127.0.0.1:9/page.png?X-Amz-Signature={PLANTED[1]}"
    (shell.folder / "m.csv").write_bytes(manifest({"remote": url, "ok": "p1.png"}))
    shutil.rmtree(shell.folder / "out")
    shell.variables = SECRETS
    write_jobs(shell.folder, job(engine={"name": "qwen"}), name="vlm.yaml")
    write_jobs(shell.folder, job(output={"uri": "s3://no-such-bucket-here/x"}), name="s3.yaml")
    dead = {"PAGEMILL_S3_ENDPOINT": "http://127.0.0.1:9"}

    told = [
        shell("plan", "job.yaml", "--sample", "2"),
        shell.process("run", "job.yaml", "-o", "json"),
        *(shell(command, "job.yaml") for command in ("run", "status", "runs", "verify", "gc")),
        shell("cat", "remote", "job.yaml", "-f", "json"),
        shell("retry", "--failed", "job.yaml"),
        shell("plan", "vlm.yaml", "--api-key", PLANTED[2]),
        shell("models", "fetch", "tesseract", "--from", url, "--sha256", "0" * 64),
        shell("models", "fetch", "tesseract", "--from", url),
        shell("status", "s3.yaml", **dead),
        shell("run", "job.yaml", PAGEMILL_PRICE_PER_HOUR=PLANTED[2]),
        shell("run", "job.yaml", PAGEMILL_ALLOWED_HOSTS="*"),
        shell("engines"),
        shell("release", "job.yaml"),
    ]

    text = "\n".join(each.out + each.err for each in told)
    assert "ForbiddenAddress" in text
    assert [secret for secret in PLANTED if secret in text] == []
    views = [path for path in (shell.folder / "out").rglob("*") if path.is_file() and ".pagemill" not in str(path)]
    assert [path for path in views for secret in PLANTED if secret.encode() in path.read_bytes()] == []


def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    pages = 48  # far more than are read between the first view and the signal, also on a fast machine
    for number in range(pages):
        (tmp_path / f"p{number}.png").write_bytes(page(f"page number {number}", lines=12))
    (tmp_path / "m.csv").write_bytes(manifest({f"id{number}": f"p{number}.png" for number in range(pages)}))
    write_jobs(tmp_path, job(sharding={"itemsPerShard": 6}))

    with shell.start("run", "job.yaml", "-p", "1") as running:
        _until(lambda: any(tmp_path.glob("out/ocr_results/*.txt")), running)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=TIMEOUT_S)

    assert running.returncode == 130, err
    assert "Stopping" in err
    assert "Go on with: pagemill run job.yaml" in out
    status = shell("status", "job.yaml", "-o", "json").json
    assert (status["phase"], status["reason"], status["owner"]) == ("Suspended", "Interrupted", None)
    saved = _saved_rows(tmp_path / "out")
    assert 6 <= len(saved) < pages

    again = shell("run", "job.yaml", "-q", "-o", "json")
    assert (again.status, again.json["items"]["succeeded"]) == (0, pages)
    rows = pq.read_table(tmp_path / "out/dataset/run=00000001/part-00000.parquet").to_pylist()
    assert {row["id"]: row["finished_at"].isoformat() for row in rows if row["id"] in saved} == saved
    assert shell("verify", "job.yaml").status == 0


def _until(holds: Any, running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not holds():
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _saved_rows(output: Path) -> dict[str, str]:
    """When each page that the output holds already, committed or partial, was read."""
    files = [*output.glob(".pagemill/*/data/*/*/*/items.parquet"), *output.glob(".pagemill/*/partial/*/*.parquet")]
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    return {row["id"]: json.loads(row["payload"])["row"]["finished_at"] for row in rows}


def test_busy_output_is_refused_waited_for_and_protected_from_release(shell: Shell) -> None:
    write_jobs(shell.folder, job(output={"uri": "busy", "formats": ["text"]}))
    writer = Writer(FolderStore(shell.folder / "busy"), SystemClock())
    ledger = open_ledger(writer, "somebody")
    held = ledger.adopt(WorkRequest("0" * 64, "OcrJob")).held

    refused = shell("run", "job.yaml", "-q")
    assert refused.status == 75
    assert "OutputBusy" in refused.err
    assert "somebody" in refused.err
    assert shell("release", "busy", "--yes", "--force").status == 75

    with shell.start("run", "job.yaml", "-q", "--wait") as waiting:
        assert "Waiting" in str(waiting.stderr.readline() if waiting.stderr else "")
        ledger.update(held, owner="")
        out, err = waiting.communicate(timeout=TIMEOUT_S)
    assert waiting.returncode == 0, err
    assert "2 succeeded" in out


def test_release_gives_up_a_dead_run_after_asking(shell: Shell) -> None:
    writer = Writer(FolderStore(shell.folder / "out"), SystemClock())
    ledger = open_ledger(writer, "somebody")
    held = ledger.adopt(WorkRequest("0" * 64, "OcrJob")).held
    ledger.update(held, owner="")

    assert shell("release", "out").status != 0  # nobody answers the question
    assert shell("status", "out", "-o", "json").json["state"] == "Open"
    assert shell("release", "out", "--yes", "-o", "json").json == {"released": held.run}
    assert shell("status", "out", "-o", "json").json["reason"] == "Released"


def test_file_of_several_jobs_runs_in_the_order_of_its_dependencies(shell: Shell) -> None:
    second = job("second", output={"uri": "two"}, dependsOn=[{"kind": "OcrJob", "name": "first"}])
    write_jobs(shell.folder, second, job("first", output={"uri": "one"}))

    told = shell("run", "job.yaml", "-q", "-o", "json")

    assert (told.status, [each["name"] for each in told.json]) == (0, ["first", "second"])
    assert shell("status", "job.yaml").status == 78
    assert shell("status", "job.yaml", "--job", "second").status == 0


@pytest.mark.parametrize(
    ("document", "status", "want"),
    [
        (job(suspend=True), 75, "spec.suspend is true"),
        (job(source={"manifest": {"uri": "absent.csv"}}), 65, "absent.csv"),
        (job(engine={"name": "tesseract", "languages": ["zu"]}), 69, "zu"),
        (job(colour="red"), 78, "spec.colour"),
    ],
    ids=["suspended", "no-manifest", "no-such-language", "unknown-field"],
)
def test_run_that_cannot_be_done_says_why_in_its_exit_status(
    shell: Shell, document: dict[str, Any], status: int, want: str
) -> None:
    shutil.rmtree(shell.folder / "out")
    write_jobs(shell.folder, document)

    told = shell("run", "job.yaml", "-q")

    assert told.status == status
    assert want in told.out + told.err


def test_models_are_fetched_from_a_uri_checked_and_verified(tmp_path: Path) -> None:
    data = english_data()
    digest = json.loads(Shell(tmp_path)("models", "list", "tesseract", "-o", "json").out)["models"][0]["sha256"]
    shell = Shell(tmp_path, {"PAGEMILL_OCR_CACHE_DIR": str(tmp_path / "cache")})

    refused = shell("models", "fetch", "tesseract", "--from", data.as_uri(), "--sha256", "0" * 64)
    assert refused.status == 70
    assert shell("models", "fetch", "tesseract", "--from", "https://example.org/x.traineddata").status == 78
    fetched = shell("models", "fetch", "tesseract", "--from", data.as_uri(), "--sha256", digest, "-o", "json").json

    found = {fetched["variable"]: str(Path(fetched["path"]).parent)}
    (model,) = shell("models", "verify", "tesseract", "-o", "json", **found).json["models"]
    assert (model["name"], model["state"], model["origin"]) == ("eng", "Intact", "fetched")
    with Path(fetched["path"]).open("r+b") as file:
        file.write(b"decay")
    assert shell("models", "verify", "tesseract", **found).status == 70


def english_data() -> Path:
    told = Shell(Path.cwd())("models", "list", "tesseract", "-o", "json").json
    return Path(next(model["path"] for model in told["models"] if model["name"] == "eng"))


def test_engines_say_what_is_ready_and_what_is_missing(tmp_path: Path) -> None:
    empty = {"PAGEMILL_OCR_TESSDATA_DIR": str(tmp_path)}
    told = Shell(tmp_path)("engines", "-o", "json", **empty).json["engines"]

    by_name = {engine["name"]: engine for engine in told}
    assert by_name["rapidocr"]["ready"] is True
    assert by_name["tesseract"]["ready"] is False
    assert "PAGEMILL_OCR_TESSDATA_DIR" in by_name["tesseract"]["missing"]
