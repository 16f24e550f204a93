"""Every row of "bad input" on a real API server with the real operator: condition, reason and message, nothing lost.

Pods are the worker's own program, started by this test in a kubelet's place. All jobs are submitted at once and run
beside each other; each test looks at one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from testcluster.api import MERGE_PATCH, Answer, object_path
from testcluster.pytest_plugin import Kubernetes

from pagemill_cli.testing.command import run_command
from pagemill_cli.testing.forgetful_s3 import forgetful_s3
from pagemill_cli.testing.ocr_job import OcrResults
from pagemill_core.api.v1alpha1 import API_VERSION, Condition, JobStatus
from pagemill_core.storage.s3 import S3Store
from pagemill_core.testing import ocr_pages, odd_images
from pagemill_core.testing.odd_images import OddImage, Readable
from pagemill_core.testing.seaweed import SeaweedServer
from pagemill_core.testing.web_server import answer as reply
from pagemill_core.testing.web_server import serving
from pagemill_operator.testing.played_pods import PlayedPods
from pagemill_operator.testing.played_stage import PlayedStage
from pagemill_worker.testing.pod_processes import PodProcesses

pytestmark = [pytest.mark.cluster, pytest.mark.s3, pytest.mark.timeout(600)]

Json = Any

TESSERACT = {"name": "tesseract", "languages": ["en"]}
HEADER = "canonical_id,absolute_image_path\n"
NOWHERE = "http://127.0.0.1:9"
MISSING_BUCKET = "made-only-later"
PATIENCE_S = 420.0

# -- what is wrong with the spec: refused at once, by the server and by the command -----------------------------------

BAD_SPECS: dict[str, tuple[Json, str, str]] = {
    "unknown-field": ({"colour": "red"}, "spec.colour", 'unknown field "spec.colour"'),
    "wrong-type": ({"maxItems": "many"}, "spec.maxItems", "spec.maxItems"),
    "two-sources": (
        {"source": {"manifest": {"uri": "s3://library/m.csv"}, "images": {"uri": "s3://library/pages/"}}},
        "spec.source",
        "exactly one",
    ),
    "bad-scheme": ({"source": {"images": {"uri": "ftp://host/pages"}}}, "spec.source.images.uri", "images.uri"),
    "negative-count": ({"maxItems": -1}, "spec.maxItems", "greater than or equal to 1"),
    "budget-no-number": ({"budget": {"maxCost": "lots"}}, "spec.budget.maxCost", "spec.budget.maxCost"),
    "budget-a-float": ({"budget": {"maxCost": 2.5}}, "spec.budget.maxCost", "spec.budget.maxCost"),
}


@dataclass(frozen=True)
class House:
    """A namespace with everything in it that jobs of this file need."""

    stage: PlayedStage
    server: SeaweedServer
    pods: PodProcesses

    @property
    def library(self) -> S3Store:
        return self.server.store(self.stage.bucket)

    def put(self, key: str, data: bytes) -> str:
        self.library.put(key, data)
        return f"s3://{self.stage.bucket}/{key}"

    def job(self, name: str, **spec: Json) -> Json:
        """A job on an output of its own; by default over the two pages of pages/."""
        job = self.stage.job(
            **{
                "source": {"images": {"uri": f"s3://{self.stage.bucket}/pages/"}},
                "engine": TESSERACT,
                "output": {"uri": f"s3://{self.stage.bucket}/out/{name}"},
                "workers": {"parallelism": 1, "processesPerPod": 1},
                **spec,
            }
        )
        job["metadata"] = {"name": name}
        return job

    def create(self, job: Json) -> Answer:
        place = object_path(API_VERSION, "ocrjobs", self.stage.namespace)
        return self.stage.api.ask("POST", place, job, fieldValidation="Strict")

    def place(self, name: str, subresource: str = "") -> str:
        return object_path(API_VERSION, "ocrjobs", self.stage.namespace, name, subresource)

    def status(self, name: str) -> JobStatus:
        return JobStatus.model_validate(self.stage.api.call("GET", self.place(name)).get("status") or {})

    def until(self, name: str, holds: Callable[[JobStatus], bool]) -> JobStatus:
        deadline = time.monotonic() + PATIENCE_S
        while not holds(found := self.status(name)):
            assert time.monotonic() < deadline, f"{name}: {found}; {self.stage.log()[-3:]}; {self.stage.pods.errors}"
            time.sleep(0.2)
        return found

    def until_said(self, name: str, kind: str, value: str) -> Condition:
        """The condition once it has this value with a reason that is no mere beginning."""

        def is_said(status: JobStatus) -> bool:
            found = status.condition(kind)
            return found is not None and found.status == value and found.reason not in ("Pending", "Planning")

        found = self.until(name, is_said).condition(kind)
        assert found is not None
        return found

    def until_complete(self, name: str) -> JobStatus:

        def is_over(status: JobStatus) -> bool:
            edited = self.stage.api.call("GET", self.place(name))["metadata"]["generation"]
            is_current = status.observed_generation == edited
            return is_current and (status.is_true("Complete") or status.is_true("Failed"))

        status = self.until(name, is_over)
        assert status.is_true("Complete"), status
        return status

    def results(self, name: str) -> OcrResults:
        return OcrResults(self.server.store(self.stage.bucket, f"out/{name}"))


@pytest.fixture(scope="module")
def house(kubernetes: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    api, folder = kubernetes.api, tmp_path_factory.mktemp("house")
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "pagemill-bad-input-"}}
    namespace = api.call("POST", "/api/v1/namespaces", body)["metadata"]["name"]
    with ExitStack() as stack:
        server = stack.enter_context(SeaweedServer())
        forgetful = stack.enter_context(forgetful_s3())
        stage = PlayedStage(api, kubernetes.kubeconfig, namespace, server, folder)
        locked = server.fresh_bucket()
        read_only = write_secret(folder / "reader", server, "reader")
        stores = [
            {"endpoint": stage.endpoint, "prefix": f"s3://{locked}/", "secretPath": str(read_only)},
            *({"endpoint": one, "secretPath": str(folder / "store")} for one in (stage.endpoint, NOWHERE, forgetful)),
        ]
        stage.configure(outputs={"*": ["s3://"]}, stores=stores, allowedEndpoints=[stage.endpoint, NOWHERE, forgetful])
        settings = server.server.settings("worker")
        identity = {
            "AWS_ACCESS_KEY_ID": settings.access_key,
            "AWS_SECRET_ACCESS_KEY": settings.secret_key.get_secret_value(),
            "OMP_THREAD_LIMIT": "1",
        }
        processes = PodProcesses(folder / "pods", identity, {"pagemill-reader": read_only})
        stage.pods = PlayedPods(api, namespace, processes, processes.end)
        found = House(stage, server, processes)
        for number in range(2):
            found.put(f"pages/note_{number}.png", ocr_pages.note(number).as_bytes())
        submit_all(found, locked, forgetful)
        stage.start()
        stage.pods.start()
        stack.callback(api.call, "DELETE", f"/api/v1/namespaces/{namespace}")
        stack.callback(processes.close)
        stack.callback(stage.pods.stop)
        stack.callback(stage.kill)
        yield found
    assert stage.pods.errors == []


def write_secret(folder: Path, server: SeaweedServer, identity: Any) -> Path:
    settings = server.server.settings(identity)
    folder.mkdir()
    (folder / "accessKey").write_text(settings.access_key)
    (folder / "secretKey").write_text(settings.secret_key.get_secret_value())
    return folder


def submit_all(house: House, locked: str, forgetful: str) -> None:
    """Every job that tests below look at; the operator finds them all when it starts."""
    jobs = [
        *store_jobs(house, locked, forgetful),
        *(manifest_job(house, name, case[0]) for name, case in BAD_MANIFESTS.items()),
        *(manifest_job(house, name, data) for name, data in GOOD_MANIFESTS.items()),
        *source_jobs(house),
        gallery_job(house),
        timeout_job(house),
        *engine_jobs(house),
        house.job("first", output={"uri": f"s3://{house.stage.bucket}/out/shared"}),
    ]
    for job in jobs:
        answer = house.create(job)
        assert answer.status == 201, answer.message


@pytest.mark.parametrize("name", BAD_SPECS)
def test_spec_that_cannot_be_is_refused_at_apply_with_its_path(house: House, name: str, tmp_path: Path) -> None:
    spec, path, want = BAD_SPECS[name]
    job = house.job(f"bad-{name}", **spec)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))

    answer = house.create(job)
    told = run_command("submit", tmp_path / "job.yaml", environment={"KUBECONFIG": str(house.stage.folder / "x")})

    assert answer.status in (400, 422), answer.message
    assert path in answer.message
    assert want in answer.message
    assert told.status == 78, told.all
    assert path in told.err


# -- the store --------------------------------------------------------------------------------------------------------


def store_jobs(house: House, locked: str, forgetful: str) -> list[Json]:
    return [
        house.job("no-bucket", output={"uri": f"s3://{MISSING_BUCKET}/out"}),
        house.job("no-rights", output={"uri": f"s3://{locked}/out"}),
        house.job("no-answer", storage={"endpoint": NOWHERE}),
        house.job("not-allowed", storage={"endpoint": "http://store.elsewhere:9000"}),
        house.job("no-conditions", output={"uri": "s3://pages/out"}, storage={"endpoint": forgetful}),
        house.job("pod-without-rights", storage={**own(house), "secretRef": {"name": "pagemill-reader"}}),
    ]


def own(house: House) -> Json:
    return {"endpoint": house.stage.endpoint}


@pytest.mark.parametrize(
    ("name", "want_reason", "want_words"),
    [
        ("no-rights", "AccessDenied", ("bucket-", "grant")),
        ("no-answer", "StoreUnavailable", ("127.0.0.1:9",)),
        ("not-allowed", "EndpointNotAllowed", ("http://store.elsewhere:9000", "allowed are", "allowedEndpoints")),
        ("no-conditions", "StoreUnsuitable", ("s3://pages/out", "conditional writes")),
    ],
)
def test_store_that_cannot_be_used_is_told_with_what_to_change(
    house: House, name: str, want_reason: str, want_words: tuple[str, ...]
) -> None:
    accepted = house.until_said(name, "Accepted", "False")

    assert accepted.reason == want_reason
    assert [word for word in want_words if word not in accepted.message] == []
    assert house.status(name).run is None
    assert house.status(name).message == accepted.message


def test_bucket_that_is_missing_is_named_and_the_job_goes_on_once_it_is_there(house: House) -> None:
    accepted = house.until_said("no-bucket", "Accepted", "False")
    assert accepted.reason == "InvalidSpec"
    assert MISSING_BUCKET in accepted.message

    house.server.server.create_bucket(MISSING_BUCKET)

    status = house.until_complete("no-bucket")
    assert (status.done, status.condition("Accepted").status) == ("2/2", "True")  # type: ignore[union-attr]


def test_right_that_only_the_pod_lacks_is_told_as_not_planned(house: House) -> None:
    planned = house.until_said("pod-without-rights", "Planned", "False")

    assert planned.reason == "AccessDenied"
    assert "grant" in planned.message
    assert house.status("pod-without-rights").is_true("Accepted")


# -- the source -------------------------------------------------------------------------------------------------------

BAD_MANIFESTS: dict[str, tuple[bytes | None, tuple[str, ...]]] = {
    "manifest-missing": (None, ("manifest-missing.csv",)),
    "manifest-empty": (b"", ("manifest-empty.csv",)),
    "manifest-no-column": (b"id,path\na,b\n", ("canonical_id",)),
    "manifest-latin-1": (HEADER.encode() + b"a,p.png\nb\xe9,p.png\n", ("line 3", "UTF-8")),
    "manifest-ragged": (HEADER.encode() + b"a,p.png\nb,p.png,surplus\n", ("line 3",)),
}
GOOD_MANIFESTS: dict[str, bytes] = {
    "manifest-bom": b"\xef\xbb\xbf" + f"{HEADER}a,note_0.png\n".replace("\n", "\r\n").encode(),
    "manifest-no-rows": HEADER.encode(),
}


def manifest_job(house: House, name: str, data: bytes | None) -> Json:
    if data is not None:
        house.put(f"{name}.csv", data)
    bucket = house.stage.bucket
    return house.job(
        name, source={"manifest": {"uri": f"s3://{bucket}/{name}.csv", "pathPrefix": f"s3://{bucket}/pages"}}
    )


def source_jobs(house: House) -> list[Json]:
    bucket = house.stage.bucket
    return [house.job("listing-empty", source={"images": {"uri": f"s3://{bucket}/pages/", "include": ["*.bmp"]}})]


@pytest.mark.parametrize("name", BAD_MANIFESTS)
def test_manifest_that_cannot_be_planned_is_told_with_its_first_bad_line(house: House, name: str) -> None:
    planned = house.until_said(name, "Planned", "False")
    failed = house.until_said(name, "Failed", "True")

    assert (planned.reason, failed.reason) == ("Source", "Source")
    assert planned.message == failed.message == house.status(name).message
    assert [word for word in BAD_MANIFESTS[name][1] if word not in planned.message] == []
    assert house.results(name).listing("ocr_results/") == []


def test_manifest_with_a_byte_order_mark_and_crlf_simply_works(house: House) -> None:
    status = house.until_complete("manifest-bom")

    assert status.done == "1/1"
    assert house.results("manifest-bom").statuses()["a"]["status"] == "success"


@pytest.mark.parametrize("name", ["listing-empty", "manifest-no-rows"])
def test_source_without_an_item_completes_and_says_so(house: House, name: str) -> None:
    complete = house.until_complete(name).condition("Complete")

    assert complete is not None
    assert (complete.reason, complete.message) == ("NothingToDo", "the source holds no item")
    assert house.status(name).done == "0/0"


# -- the pictures -----------------------------------------------------------------------------------------------------

# Several pages in one file are items of their own, so only pictures that are one item take part.
ODD = [odd for odd in odd_images.ODD_IMAGES if odd.page is None and not odd.name.endswith("planned-whole")]
PRIVATE = (
    "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
    "http://10.0.0.7/p.png",
    "http://[fd00:ec2::254]/p.png",
    "http://2852039166/p.png",
    "http://localhost:PORT/p.png",
    "http://127.0.0.1:PORT/p.png",
)
GALLERY_ENTRIES: Mapping[str, bytes] = {"blank.png": ocr_pages.blank_page().as_bytes()}


def gallery_job(house: House) -> Json:
    """One job over every odd picture there is, a missing one, a blank one, and addresses that are nobody's business."""
    rows = [HEADER]
    for odd in ODD:
        suffix = ".pdf" if odd.name.startswith("pdf") else ".img"
        house.put(f"odd/{odd.name}{suffix}", odd.make())
        rows.append(f"{odd.name},{odd.name}{suffix}\n")
    for name, data in GALLERY_ENTRIES.items():
        house.put(f"odd/{name}", data)
    rows += ["blank,blank.png\n", "missing,no-such.png\n", "../up,blank.png\n"]
    rows += [f"url-{number},{url.replace('PORT', '9')}\n" for number, url in enumerate(PRIVATE)]
    manifest = house.put("gallery.csv", "".join(rows).encode())
    source = {"manifest": {"uri": manifest, "pathPrefix": f"s3://{house.stage.bucket}/odd"}}
    return house.job(
        "gallery",
        source=source,
        sharding={"itemsPerShard": 100},
        retries={"maxFailedItems": "100%", "perItem": 0},
    )


@pytest.fixture(scope="module")
def gallery(house: House) -> Mapping[str, Mapping[str, Any]]:
    """What became of each item."""
    house.until_complete("gallery")
    return house.results("gallery").statuses()


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.name)
def test_odd_picture_is_decoded_or_fails_by_its_own_class(
    gallery: Mapping[str, Mapping[str, Any]], odd: OddImage
) -> None:
    status = gallery.get(odd.name) or gallery[f"{odd.name}#p0001"]

    if isinstance(odd.want, Readable) and min(odd.want.width_px, odd.want.height_px) >= 8:
        assert status["status"] == "success", status
    else:
        want = "ImageTooSmall" if isinstance(odd.want, Readable) else odd.want.__name__
        assert (status["status"], status["error_class"]) == ("error", want)
        assert len(status["error_message"]) > 10


def test_gallery_counts_every_item_once_and_tells_of_failures(house: House, gallery: Mapping[str, Any]) -> None:
    status = house.status("gallery")
    complete = status.condition("Complete")

    assert complete is not None
    assert complete.reason == "CompletedWithFailures"
    assert status.items is not None
    # A duplicate of its status line would be an item done twice; an unsafe id has no file of its own.
    assert status.items.total == status.items.succeeded + status.items.failed == len(gallery)
    assert f"{status.items.failed} of {status.items.total} items failed" in complete.message
    assert 0 < len(status.failures) <= 20
    assert all(sample.class_ and sample.message for sample in status.failures)


@pytest.mark.parametrize(("item", "want"), [("missing", "ImageMissing"), ("../up", "UnsafeId")])
def test_item_that_cannot_be_read_fails_by_its_own_class(gallery: Mapping[str, Any], item: str, want: str) -> None:
    assert (gallery[item]["status"], gallery[item]["error_class"]) == ("error", want)


@pytest.mark.parametrize("number", range(len(PRIVATE)))
def test_url_into_a_private_network_is_forbidden(gallery: Mapping[str, Any], number: int) -> None:
    found = gallery[f"url-{number}"]

    assert (found["status"], found["error_class"]) == ("error", "ForbiddenAddress"), found


def test_page_without_text_succeeds_with_no_regions(house: House, gallery: Mapping[str, Any]) -> None:
    page = house.results("gallery").pages()["blank"]

    assert gallery["blank"]["status"] == "success"
    assert (page["text_regions"], page["num_regions"]) == ([], 0)


# -- an item that takes its process down ------------------------------------------------------------------------------


def timeout_job(house: House) -> Json:
    house.put("slow/endless.png", ocr_pages.long_page(400, 24).as_bytes())
    for number in range(2):
        house.put(f"slow/note_{number}.png", ocr_pages.note(number).as_bytes())
    return house.job(
        "slow",
        source={"images": {"uri": f"s3://{house.stage.bucket}/slow/"}},
        retries={"perItem": 0, "itemTimeoutSeconds": 4, "maxFailedItems": "100%"},
        sharding={"itemsPerShard": 9},
    )


def test_item_that_hangs_fails_alone(house: House) -> None:
    status = house.until_complete("slow")

    statuses = house.results("slow").statuses()
    assert {name: one.get("error_class") for name, one in statuses.items() if one["status"] == "error"} == {
        "endless": "ItemTimeout"
    }
    assert [(one.item, one.class_) for one in status.failures] == [("endless", "ItemTimeout")]
    assert status.items is not None
    assert (status.items.succeeded, status.items.failed) == (2, 1)


# -- the engine -------------------------------------------------------------------------------------------------------


def engine_jobs(house: House) -> list[Json]:
    return [
        house.job("no-language", engine={"name": "tesseract", "languages": ["tlh"]}),
        house.job("no-option", engine={"name": "tesseract", "options": {"speed": "9"}}),
    ]


@pytest.mark.parametrize(
    ("name", "want_reason", "want_words"),
    [
        ("no-language", "EngineUnavailable", ("tlh", "eng")),
        ("no-option", "InvalidSpec", ("engine.options.speed", "known options")),
    ],
)
def test_engine_that_cannot_do_it_is_refused_before_work_starts(
    house: House, name: str, want_reason: str, want_words: tuple[str, ...]
) -> None:
    planned = house.until_said(name, "Planned", "False")
    failed = house.until_said(name, "Failed", "True")

    assert (planned.reason, failed.reason) == (want_reason, want_reason)
    assert [word for word in want_words if word not in planned.message] == []
    owned = [job["metadata"]["name"] for job in house.stage.jobs() if job["metadata"]["name"].startswith(name)]
    assert [one for one in owned if not one.endswith("-p")] == []


# -- somebody else's output -------------------------------------------------------------------------------------------


def test_output_of_a_job_under_way_is_busy_and_its_holder_named(house: House) -> None:
    holder = house.job("holder", suspend=False)
    holder["spec"]["source"] = {"images": {"uri": f"s3://{house.stage.bucket}/slow/"}}
    holder["spec"]["retries"] = {"itemTimeoutSeconds": 600}
    assert house.create(holder).status == 201
    house.until("holder", lambda status: status.planned_at is not None)
    other = house.job("other", output=holder["spec"]["output"], maxItems=1)
    before = house.results("holder").tokens()
    assert house.create(other).status == 201

    accepted = house.until_said("other", "Accepted", "False")

    assert accepted.reason == "OutputBusy"
    assert f"OcrJob {house.stage.namespace}/holder" in accepted.message
    assert house.status("other").phase == "Waiting"
    after = house.results("holder").tokens()
    assert {key: after[key] for key in before if "commit" in key} == {
        key: token for key, token in before.items() if "commit" in key
    }
    house.stage.api.call("DELETE", house.place("holder"))
    house.stage.api.call("DELETE", house.place("other"))


def test_output_of_another_fingerprint_is_in_use_and_nothing_is_overwritten(house: House) -> None:
    house.until_complete("first")
    results = OcrResults(house.server.store(house.stage.bucket, "out/shared"))
    before = results.tokens("ocr_results/")
    output = {"uri": f"s3://{house.stage.bucket}/out/shared"}
    engine = {**TESSERACT, "options": {"psm": 6}}
    assert house.create(house.job("second", engine=engine, output=output)).status == 201

    found = house.until("second", lambda status: status.is_true("Failed") or said_false(status))
    said = next(one for one in found.conditions if one.reason == "OutputInUse")

    assert "psm" in said.message
    assert "onConflict" in said.message
    assert results.tokens("ocr_results/") == before
    # The way out that the message names.
    patch = {"spec": {"output": {"onConflict": "Replace"}}}
    house.stage.api.call("PATCH", house.place("second"), patch, content_type=MERGE_PATCH)
    assert house.until_complete("second").done == "2/2"


def said_false(status: JobStatus) -> bool:
    return any(one.reason == "OutputInUse" for one in status.conditions)


# -- addresses that the operator's owner allows -----------------------------------------------------------------------


def test_private_address_is_read_where_the_settings_allow_it(house: House) -> None:
    with serving({"/p.png": reply(200, ocr_pages.note(0).as_bytes())}) as (port, seen):
        config = house.stage.folder / "operator.yaml"
        given = yaml.safe_load(config.read_text())
        config.write_text(yaml.safe_dump({**given, "allowedHosts": ["127.0.0.1/32"]}))
        house.stage.kill()
        house.stage.start()
        rows = f"{HEADER}here,http://127.0.0.1:{port}/p.png\nthere,http://169.254.169.254/p.png\n"
        manifest = house.put("allowed.csv", rows.encode())
        limits = {"maxFailedItems": "100%"}
        assert house.create(house.job("allowed", source={"manifest": {"uri": manifest}}, retries=limits)).status == 201
        house.until_complete("allowed")

    statuses = house.results("allowed").statuses()
    assert statuses["here"]["status"] == "success"
    assert statuses["there"]["error_class"] == "ForbiddenAddress"
    assert len(seen.requests) >= 1
