"""`pagemill search`, `dedup` and `export` as typed, on a folder and on S3; their contact sheet in a real browser."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from pagemill_cli.commands import search
from pagemill_cli.testing.command import Told, run_command, s3_environment
from pagemill_core.clock import SystemClock
from pagemill_core.storage.folder import FolderStore
from pagemill_core.storage.s3 import S3Store
from pagemill_core.storage.store import ObjectStore
from pagemill_core.testing.seaweed import SeaweedServer
from pagemill_core.work.conditional import Writer
from pagemill_worker.embed.search.build import IndexSettings, build_index
from pagemill_worker.embed.search.ids import RowFacts
from pagemill_worker.embed.search.opening import space_metadata
from pagemill_worker.embed.search.query import Loaders
from pagemill_worker.embed.search.sheet import Card, Group, Sheet, write_sheet
from pagemill_worker.embed.search.space import Space, StoredEncoder
from pagemill_worker.testing.colour_encoder import MADE_BY, ColourPictures, ColourTexts
from pagemill_worker.testing.vector_dataset import MadePart, write_vectors

COLOURS = {
    "roses": (220, 20, 30),
    "poppies": (200, 40, 30),
    "meadow": (30, 190, 40),
    "sea": (20, 40, 210),
    "sky": (60, 90, 230),
    "lemons": (230, 220, 20),
}
SPACE = Space(
    rows="visual",
    encoders={side: StoredEncoder(side=side, name="colours") for side in ("visual", "text")},  # type: ignore[arg-type]
    made_by={"visual": MADE_BY},  # type: ignore[dict-item]
)
HOSTILE = "<script>document.title='owned'</script>\"'&\u202e"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ("--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run")


@pytest.fixture(autouse=True)
def _colours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(search, "encoders", lambda: Loaders(text=ColourTexts, visual=ColourPictures))
    monkeypatch.setenv("PAGEMILL_MODELS_DIR", str(tmp_path / "models"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one colour each, in several shapes."""
    folder: Path = tmp_path_factory.mktemp("photos")
    for number, (name, colour) in enumerate(COLOURS.items()):
        pixels = np.full((300, 240 + 90 * number, 3), colour, np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.jpg")
    return folder


def write_output(store: ObjectStore, photos: Path, *, with_index: bool = True) -> None:
    rows = np.asarray(list(COLOURS.values()), np.float32)
    names = list(COLOURS)
    part = MadePart(
        ids=names,
        vectors=rows / np.linalg.norm(rows, axis=1, keepdims=True),
        columns={"source_uri": [str(photos / f"{name}.jpg") for name in names], "meta_size": [1, 2, 3, 4, 5, 6]},
        metadata=space_metadata(SPACE),
    )
    write_vectors(store, part)
    if with_index:
        writer = Writer(store, SystemClock(), deadline_s=0)
        build_index(writer, IndexSettings(run="00000001-abcdef01", attempt="a1", space=SPACE))


@pytest.fixture(params=["index", "Parquet alone"])
def output(request: pytest.FixtureRequest, tmp_path: Path, photos: Path) -> Path:
    store = FolderStore(tmp_path / "out", fsync=False)
    write_output(store, photos, with_index=request.param == "index")
    return tmp_path / "out"


def hits(told: Told) -> list[str]:
    assert told.status == 0, told.all
    return [hit["id"] for hit in told.json["hits"]]


def test_search_by_words_finds_the_pictures(output: Path) -> None:
    told = run_command("search", output, "red", "--k", 2, "-o", "json")

    assert hits(told) == ["roses", "poppies"]
    first = told.json["hits"][0]
    assert first["rank"] == 1
    assert first["score"] > 0.95
    assert first["caption"] == "caption of roses"


def test_search_by_a_picture_finds_its_like(output: Path, photos: Path) -> None:
    assert hits(run_command("search", output, "--image", photos / "sea.jpg", "-k", 2, "-o", "json")) == ["sea", "sky"]


def test_search_like_an_item_leaves_the_item_out(output: Path) -> None:
    told = run_command("search", output, "--like", "roses", "-k", 1, "-o", "json")

    assert hits(told) == ["poppies"]
    assert told.json["hits"][0]["rank"] == 1


def test_search_for_people_names_score_id_and_how(output: Path) -> None:
    told = run_command("search", output, "green", "-k", 1)

    assert told.status == 0
    assert "meadow" in told.out
    assert "1  0.9" in told.out
    assert "index of 00000001-abcdef01" in told.out or "exact, through Parquet" in told.out


@pytest.mark.parametrize(
    ("words", "status", "want"),
    [
        ((), 78, "ask one thing"),
        (("red", "--like", "sea"), 78, "ask one thing"),
        (("--like", "nothing"), 75, "has no row here"),
        (("nonsense",), 70, "no direction"),
        (("red", "--column", "other"), 78, "no vectors in a column"),
        (("--image", "missing.jpg"), 70, "missing.jpg"),
    ],
    ids=["nothing", "two things", "unknown item", "no direction", "no such column", "no such picture"],
)
def test_search_refused_says_why(output: Path, words: tuple[str, ...], status: int, want: str) -> None:
    told = run_command("search", output, *words)

    assert told.status == status, told.all
    assert want in told.err
    assert "Traceback" not in told.all


def test_search_with_another_model_is_refused_with_what_differs(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(settings: Any) -> ColourTexts:
        encoder = ColourTexts(settings)
        encoder.facts = replace(encoder.facts, fingerprint={"model": {"digest": "sha256:other"}})
        return encoder

    monkeypatch.setattr(search, "encoders", lambda: Loaders(text=other, visual=ColourPictures))

    told = run_command("search", output, "red")

    assert told.status == 70
    assert "model.digest: rows sha256:c0, query sha256:other" in told.err


def test_search_without_a_dataset_says_what_to_do(tmp_path: Path) -> None:
    told = run_command("search", tmp_path, "red")

    assert told.status == 75
    assert "pagemill run" in told.err


@pytest.mark.s3
@pytest.mark.parametrize("with_index", [True, False], ids=["index", "Parquet alone"])
def test_search_works_on_s3(
    s3_server: SeaweedServer, s3_store: S3Store, photos: Path, tmp_path: Path, with_index: bool
) -> None:
    write_output(s3_store, photos, with_index=with_index)
    environment = s3_environment(s3_server.server.settings("worker"))

    for _ in range(2):
        told = run_command("search", s3_store.uri, "blue", "-k", 2, "-o", "json", environment=environment)
        assert hits(told) == ["sea", "sky"]
    assert len(list((tmp_path / "models" / "indexes").glob("*"))) == int(with_index)


def test_dedup_writes_every_form(output: Path, tmp_path: Path) -> None:
    for name in ("groups.csv", "groups.json", "groups.parquet"):
        told = run_command("dedup", output, "--threshold", 0.97, "--to", tmp_path / name)
        assert told.status == 0, told.all
        assert "6 rows, 2 groups, 2 redundant" in told.out

    rows = list(csv.DictReader(io.StringIO((tmp_path / "groups.csv").read_text())))
    assert [(row["group"], row["id"], row["keep"]) for row in rows][:2] == [
        ("1", "poppies", "True"),
        ("1", "roses", "False"),
    ]
    assert json.loads((tmp_path / "groups.json").read_text())[0]["id"] == "poppies"
    told = run_command("dedup", output, "--threshold", 0.97, "-o", "json")
    assert told.json["redundant"] == 2
    assert run_command("dedup", output, "--to", tmp_path / "groups.txt").status == 78


def test_export_into_a_file_tells_what_it_wrote(output: Path, tmp_path: Path) -> None:
    told = run_command("export", output, tmp_path / "rows.parquet", "-o", "json")

    assert told.status == 0, told.all
    assert (told.json["rows"], told.json["dim"]) == (6, 3)
    assert (tmp_path / "rows.parquet").is_file()
    assert run_command("export", output, tmp_path / "rows.xlsx").status == 78


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert path is not None, f"install one of {', '.join(BROWSERS)}"
    with sync_playwright() as playwright:
        # Without its own sandbox, because test machines are often containers that allow none; it opens our files only.
        opened = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS), chromium_sandbox=False)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": 1300, "height": 900})
    opened.complaints = []  # type: ignore[attr-defined]
    opened.on("console", lambda message: opened.complaints.append(message.text))  # type: ignore[attr-defined]
    opened.on("requestfailed", lambda failed: opened.complaints.append(failed.url))  # type: ignore[attr-defined]
    yield opened
    opened.close()


def loaded(page: Page) -> list[bool]:
    """By picture of the sheet: whether the browser could show it."""
    page.wait_for_load_state("load")
    shown: list[bool] = page.eval_on_selector_all(
        "img",
        "all => Promise.all(all.map(image => { image.loading = 'eager'; return image.decode().then(() => true,"
        " () => false); }))",
    )
    return shown


def test_sheet_shows_query_ranks_scores_and_pictures(output: Path, tmp_path: Path, page: Page) -> None:
    told = run_command("search", output, "red", "--sheet", tmp_path / "sheet.html", "-k", 4)
    assert told.status == 0, told.all

    page.goto((tmp_path / "sheet.html").as_uri())

    assert page.locator("h1").inner_text() == "red"
    assert page.locator(".card .id").all_inner_texts()[:2] == ["roses", "poppies"]
    assert page.locator(".card .rank").all_inner_texts() == ["1", "2", "3", "4"]
    scores = [float(score) for score in page.locator(".card .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    assert page.locator(".card .caption").first.inner_text() == "caption of roses"
    assert loaded(page) == [True] * 4
    assert page.complaints == []  # type: ignore[attr-defined]
    assert (tmp_path / "sheet.html").stat().st_size < 300_000


def test_sheet_shows_the_picture_that_was_asked_for(output: Path, tmp_path: Path, photos: Path, page: Page) -> None:
    run_command("search", output, "--image", photos / "sea.jpg", "--sheet", tmp_path / "sheet.html", "-k", 2)

    page.goto((tmp_path / "sheet.html").as_uri())

    assert page.locator("h1").inner_text() == "sea.jpg"
    assert page.locator(".asked img").count() == 1
    assert loaded(page) == [True] * 3


def test_sheet_says_why_a_picture_is_missing(output: Path, tmp_path: Path, photos: Path, page: Page) -> None:
    kept = (photos / "roses.jpg").read_bytes()
    (photos / "roses.jpg").unlink()
    try:
        told = run_command("search", output, "red", "--sheet", tmp_path / "sheet.html", "-k", 2)
    finally:
        (photos / "roses.jpg").write_bytes(kept)

    assert told.status == 0, told.all
    page.goto((tmp_path / "sheet.html").as_uri())
    assert "not found" in page.locator(".card .picture").first.inner_text()
    assert loaded(page) == [True]


def test_sheet_of_hostile_text_runs_nothing_and_fits_the_page(tmp_path: Path, page: Page) -> None:
    row = RowFacts(id=HOSTILE + "W" * 3000, run=1, part=0, row=0, source_uri=HOSTILE, caption=HOSTILE * 30)
    cards = [Card(rank=rank, score=0.5, row=row, why=HOSTILE) for rank in range(1, 8)]
    with (tmp_path / "sheet.html").open("wb") as out:
        write_sheet(out, Sheet(asked=HOSTILE, groups=[Group(cards, HOSTILE, HOSTILE)], notes=[HOSTILE]))

    for width in (360, 1300):
        page.set_viewport_size({"width": width, "height": 800})
        page.goto((tmp_path / "sheet.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.title().startswith("<script>")
    assert page.locator("script").count() == 0
    assert page.complaints == []  # type: ignore[attr-defined]


def test_dedup_sheet_shows_groups_with_the_kept_one_marked(output: Path, tmp_path: Path, page: Page) -> None:
    run_command("dedup", output, "--threshold", 0.97, "--sheet", tmp_path / "sheet.html")

    page.goto((tmp_path / "sheet.html").as_uri())

    assert [text.split()[0:2] for text in page.locator("h2").all_inner_texts()] == [["Group", "1"], ["Group", "2"]]
    assert page.locator(".card.kept .id").all_inner_texts() == ["poppies", "sea"]
    assert loaded(page) == [True] * 4
