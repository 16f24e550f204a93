"""An OcrJob on a real node: the project's own images, its chart, real engines and a real S3 server."""

from __future__ import annotations

import io
import itertools
import json
import re
import subprocess
from pathlib import Path

import pytest
from demo_pages import all_pages
from PIL import Image
from pypdfium2 import PdfDocument
from testcluster import images
from testcluster.api import Json
from testcluster.stage import OPERATOR_IMAGE, TAG, WORKER_IMAGE, Stage, with_output

from pagemill_cli.testing.promises import broken_promises, take_picture
from pagemill_core.testing import ocr_pages

pytestmark = [pytest.mark.cluster, pytest.mark.node, pytest.mark.s3, pytest.mark.timeout(2400)]

PAGE_COUNT = 200
# Pages of every kind that the demo has; those of one file count by their frames.
DEMO_FILES = ("license/page_001", "handbook/readme_001", "vera license.pdf", "fax #2.tiff", "scans/", "photos/phone_1")
COMICS = tuple(f"comics/Night Mill/page_{number:03}" for number in range(1, 5))
_ML = re.compile(r"numpy|torch|onnx|opencv|rapidocr|tesserocr|paddle|easyocr|transformers|scipy|faiss|pillow|pyarrow")
_TIMES = re.compile(rb'"timestamp": "[^"]*"|"(decode|fetch|recognise|wait)": [0-9.e-]+')


@pytest.fixture(scope="module")
def real_pages() -> dict[str, bytes]:
    """Files of PAGE_COUNT pages: documents, a fax, scans, a photo and comics, and then printed prose."""
    found = {page.name: page.data for page in all_pages() if page.name.startswith((*DEMO_FILES, *COMICS))}
    fax, book = Image.open(io.BytesIO(found["fax #2.tiff"])), PdfDocument(found["vera license.pdf"])
    count = len(found) - 2 + fax.n_frames + len(book)  # type: ignore[attr-defined]
    book.close()
    for number in range(PAGE_COUNT - count):
        found[f"prose/page_{number:03}.png"] = ocr_pages.page(number).as_bytes()
    return found


def without_times(views: dict[str, bytes]) -> dict[str, bytes]:
    return {key: _TIMES.sub(b"", data) for key, data in views.items()}


def rows_without_times(rows: tuple[dict[str, Json], ...]) -> list[dict[str, Json]]:
    return [{name: value for name, value in row.items() if name != "finished_at"} for row in rows]


@pytest.mark.parametrize("engine", ["rapidocr", "tesseract"])
def test_two_hundred_pages_are_read_as_on_one_machine(stage: Stage, real_pages: dict[str, bytes], engine: str) -> None:
    stage.put_pages(real_pages)
    job = stage.job(engine={"name": engine, "languages": ["en"]}, sharding={"itemsPerShard": 25})
    job["spec"]["workers"]["parallelism"] = 4
    stage.apply(job)
    stage.until_phase("Running", most_s=60)
    stage.until_phase("Succeeded", "Failed", most_s=1000)

    status = stage.status()
    assert (status.phase, status.done) == ("Succeeded", f"{PAGE_COUNT}/{PAGE_COUNT}"), stage.report()
    assert status.cost is not None
    assert 0 < float(status.cost.spent or 0) < 0.10, "at 0.10 an hour for each pod"
    stage.run_locally(with_output(job, f"s3://{stage.bucket}/local"), timeout_s=1000)
    here, there = take_picture(stage.store("local")), take_picture(stage.store("out/comics"))
    assert len(here.views) == PAGE_COUNT
    assert without_times(there.views) == without_times(here.views)
    assert rows_without_times(there.rows) == rows_without_times(here.rows)
    assert broken_promises(stage.store("out/comics"), [row["id"] for row in here.rows]) == []


def test_get_shows_each_stage_of_a_job(stage: Stage, tmp_path: Path) -> None:
    stage.put_pages({f"page_{number:03}.png": ocr_pages.note(number).as_bytes() for number in range(24)})
    job = stage.job(engine={"name": "tesseract", "languages": ["en"]}, sharding={"itemsPerShard": 2})
    command = [*stage.kubectl_command(), "get", "ocrjobs", "--watch"]
    with (tmp_path / "watched").open("w") as output, subprocess.Popen(command, stdout=output) as watching:
        stage.apply(job)
        stage.until_phase("Succeeded", most_s=200)
        watching.terminate()

    header, *lines = (tmp_path / "watched").read_text().splitlines()
    assert header.split() == ["NAME", "PHASE", "DONE", "FAILED", "RATE", "ETA", "COST", "AGE"]
    phases = [phase for phase, _ in itertools.groupby(line.split()[1] for line in lines if len(line.split()) > 2)]
    assert phases[-3:] == ["Running", "Finalizing", "Succeeded"], lines
    assert "24/24" in lines[-1]


@pytest.mark.usefixtures("built_images")
def test_operator_image_holds_no_ml_package() -> None:
    listing = images.run_in_image(
        f"{OPERATOR_IMAGE}:{TAG}",
        ["python", "-c", "import importlib.metadata as m; print(*sorted(d.name.lower() for d in m.distributions()))"],
    )

    names = listing.split()
    assert {"kopf", "pagemill-core", "pagemill-operator"} <= set(names)
    assert [name for name in names if _ML.search(name)] == []
    assert "pagemill-worker" not in names


@pytest.mark.usefixtures("built_images")
@pytest.mark.parametrize("image", [OPERATOR_IMAGE, WORKER_IMAGE])
def test_image_runs_as_nobody_and_holds_neither_compiler_nor_fakes(image: str) -> None:
    found = images.run_in_image(
        f"{image}:{TAG}",
        [
            "sh",
            "-c",
            "id -u; id -g; command -v gcc cc ld make; find /opt/pagemill -name testing -path '*mill_*'",
        ],
    )

    assert found.split() == ["65532", "65532"]
    config = json.loads(images.describe_image(f"{image}:{TAG}"))["Docker"]["config"]
    assert config["User"] == "65532:65532"


@pytest.mark.usefixtures("built_images")
def test_worker_image_lists_its_engines() -> None:
    lines = (
        "import json",
        "from pagemill_worker.ocr.registry import adapter, names",
        "print(json.dumps({name: adapter(name).status().ready for name in names()}))",
    )
    said = images.run_in_image(f"{WORKER_IMAGE}:{TAG}", ["python", "-c", "\n".join(lines)])

    found = json.loads(said.splitlines()[-1])

    assert found["rapidocr"]
    assert found["tesseract"]
    assert not found["easyocr"]
