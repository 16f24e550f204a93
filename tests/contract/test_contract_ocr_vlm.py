"""Remote models through the whole command, against a server on loopback that answers as badly as real ones do."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pagemill_cli.local import driver
from pagemill_cli.testing.command import Told
from pagemill_cli.testing.ocr_job import OcrJobFile, OcrResults
from pagemill_core.storage.folder import FolderStore
from pagemill_core.testing import ocr_pages
from pagemill_core.testing.vlm_faults import Answer, Behaviour, ChatRequest, Status, always
from pagemill_core.testing.vlm_server import BadVlmServer

KEY = "sk-of-this-test"
REGIONS = [
    {"text": "The committee met", "location": "top", "confidence": 0.97},
    {"text": "on Monday", "location": "middle"},
]
PLAIN = json.dumps({"text_regions": REGIONS})
REPLIES = {
    "fenced": f"```json\n{PLAIN}\n```",
    "plain": PLAIN,
    "prose": "This page says: the committee met on Monday.",
}


def make_job(folder: Path, server: BadVlmServer, names: list[str], **options: object) -> OcrJobFile:
    """A job over pages that all look different, one request at a time unless `options` say otherwise."""
    (folder / "pages").mkdir()
    for number, name in enumerate(names):
        (folder / "pages" / f"{name}.png").write_bytes(ocr_pages.page(number).as_bytes())
    spec = {
        "source": {"images": {"uri": "pages"}},
        "engine": {
            "name": "vlm",
            "model": "some/model",
            "endpoint": server.base_url,
            "options": {"maxInFlight": 1, "patienceSeconds": 20, **options},
        },
    }
    return OcrJobFile(folder, spec, environment={"PAGEMILL_API_KEY": KEY})


def results_of(job: OcrJobFile) -> OcrResults:
    return OcrResults(FolderStore(job.folder / "out"))


@contextmanager
def scripted(script: Callable[[ChatRequest], Behaviour], capacity: int | None = None) -> Iterator[BadVlmServer]:
    with BadVlmServer(script, api_key=KEY, capacity=capacity, busy_retry_after="1") as server:
        yield server
        assert server.broken == []


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Told, OcrResults]:
    """One run whose pages were answered in the three forms of a reply."""
    names = sorted(REPLIES)
    with scripted(lambda request: Answer(REPLIES[names[request.number]])) as server:
        job = make_job(tmp_path_factory.mktemp("replies"), server, names)
        return job.run(), results_of(job)


@pytest.mark.parametrize("form", ["fenced", "plain"])
def test_vlm_json_reply_becomes_its_regions(parsed: tuple[Told, OcrResults], form: str) -> None:
    """Row 42: fenced JSON and plain JSON parse alike; a confidence that is not given is 0.9, and marked."""
    told, results = parsed
    assert told.status == 0, told.all
    page = results.page(form)
    assert [region["text"] for region in page["text_regions"]] == ["The committee met", "on Monday"]
    assert [region["confidence"] for region in page["text_regions"]] == [0.97, 0.9]
    assert page["text_regions"][0]["metadata"]["location"] == "top"
    assert page["text_regions"][1]["metadata"]["confidence_is_default"] is True
    assert page["full_text"] == "The committee met on Monday"


def test_vlm_prose_reply_becomes_one_region_marked_as_unparsed(parsed: tuple[Told, OcrResults]) -> None:
    """Row 42: prose is one region of confidence 0.5 with `parsing_failed`."""
    (region,) = parsed[1].page("prose")["text_regions"]
    assert (region["text"], region["confidence"]) == (REPLIES["prose"], 0.5)
    assert region["metadata"]["parsing_failed"] is True


def test_vlm_run_reports_what_the_endpoint_charged(parsed: tuple[Told, OcrResults]) -> None:
    """Row 48: what it cost is measured, by the answers' own figures, not estimated."""
    told, results = parsed
    assert float(told.json["spent"]) == pytest.approx(3 * 0.002)
    assert float(results.summary()["pagemill"]["cost"]["spent"]) == pytest.approx(3 * 0.002)
    assert results.page("plain")["pagemill"]["usage"]["cost_usd"] == 0.002


def test_vlm_budget_stops_the_run_at_what_the_endpoint_charged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 48: a budget holds against measured cost; what was read stays, and with more money the run goes on."""
    monkeypatch.setattr(driver, "LOOK_EVERY_S", 0.1)
    names = [f"p{number}" for number in range(12)]
    with scripted(always(Answer(takes_s=0.2))) as server:
        job = make_job(tmp_path, server, names)
        job.spec = {**job.spec, "budget": {"maxCost": "0.005"}, "sharding": {"itemsPerShard": 1}}
        told = job.run()
        read, paid = len(results_of(job).pages()), len(server.requests)
        job.spec = {**job.spec, "budget": {"maxCost": "1"}}
        again = job.run()
    assert told.status == 4, told.all
    assert told.json["outcome"] == "BudgetExceeded"
    assert 1 <= read <= paid < len(names)
    assert float(told.json["spent"]) == pytest.approx(0.002 * paid)
    assert again.status == 0, again.all
    assert again.json["items"]["succeeded"] == len(names)
    assert len(server.requests) == len(names), "no page is paid for twice"
    assert float(again.json["spent"]) == pytest.approx(0.002 * len(names))


def test_vlm_retry_after_is_honoured_and_no_page_is_lost(tmp_path: Path) -> None:
    """Row 43: 429 with Retry-After is waited for as long as it asks, and every page is read."""
    arrivals: dict[str, list[float]] = defaultdict(list)
    lock = threading.Lock()

    def script(request: ChatRequest) -> Behaviour:
        with lock:
            arrivals[request.page].append(time.monotonic())
        return Status(429, retry_after="1") if request.call_of_page == 0 and request.number == 0 else Answer()

    with scripted(script) as server:
        job = make_job(tmp_path, server, ["a", "b", "c"])
        told = job.run()
    assert told.status == 0, told.all
    assert told.json["items"]["succeeded"] == 3
    refused = next(times for times in arrivals.values() if len(times) == 2)
    assert refused[1] - refused[0] >= 1.0
    assert all(page["num_regions"] == 1 for page in results_of(job).pages().values())


def test_vlm_concurrency_falls_to_what_the_endpoint_bears(tmp_path: Path) -> None:
    """Row 43: an endpoint that bears two requests at once is not asked four at once for long; no page is lost."""
    names = [f"p{number:02}" for number in range(7)]
    with scripted(always(Answer(takes_s=0.15)), capacity=2) as server:
        job = make_job(tmp_path, server, names, maxInFlight=4)
        told = job.run()
    assert told.status == 0, told.all
    assert told.json["items"] == {"planned": 7, "succeeded": 7, "failed": 0, "skipped": 0}
    assert server.max_in_flight > 2
    assert server.statuses[200] == 7
    assert server.statuses[429] < len(names), "an endpoint that refuses is asked less, not as often as before"


@pytest.mark.parametrize(
    ("status", "advice"), [(429, "→ lower engine.options.maxInFlight"), (503, "→ run the same command again")]
)
def test_vlm_endpoint_that_never_recovers_ends_the_run_with_the_reason(
    tmp_path: Path, status: int, advice: str
) -> None:
    """Row 34: HTTP 429 and 5xx are errors with a reason, never a success with 0 regions."""
    with scripted(always(Status(status))) as server:
        job = make_job(tmp_path, server, ["a"], patienceSeconds=0.5)
        told = job.run()
    assert told.status == 75, told.all
    assert f"answered {status}" in told.err
    assert advice in told.err
    assert results_of(job).listing("ocr_results/") == []


def test_vlm_run_goes_on_once_the_endpoint_is_back(tmp_path: Path) -> None:
    """Row 43: an outage fails no page: the same command, given again, reads what is missing."""
    with scripted(always(Status(502))) as server:
        job = make_job(tmp_path, server, ["a"], patienceSeconds=0.5)
        assert job.run().status == 75
        server.script = always(Answer())
        told = job.run()
    assert told.status == 0, told.all
    assert told.json["items"] == {"planned": 1, "succeeded": 1, "failed": 0, "skipped": 0}


def test_vlm_wrong_key_ends_the_run_with_what_to_do_and_spends_nothing(tmp_path: Path) -> None:
    """Row 34: a key that is refused is no page's fault: the run ends, and nothing is called empty."""
    with scripted(always(Answer())) as server:
        job = make_job(tmp_path, server, ["a", "b"])
        job.environment = {"PAGEMILL_API_KEY": "another-key"}
        told = job.run()
    assert told.status == 77, told.all
    assert told.err.startswith("AccessDenied: ")
    assert "→ " in told.err
    assert "another-key" not in told.all
    assert results_of(job).listing("ocr_results/") == []


def test_vlm_model_that_the_endpoint_does_not_have_ends_the_run(tmp_path: Path) -> None:
    """Row 34: a model that is not found is told as such."""
    with scripted(always(Status(404, message="No endpoints found for some/model"))) as server:
        job = make_job(tmp_path, server, ["a", "b"])
        told = job.run()
    assert told.status == 69, told.all
    assert "some/model" in told.err
    assert "→ name a model in engine.model" in told.err
    assert results_of(job).listing("ocr_results/") == []
