"""Listings as sources: which files are pages, in which order, under which ids."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagemill_core.errors import SourceError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.storage.store import ObjectInfo
from pagemill_worker.fetch.fetched import local_version
from pagemill_worker.plan.listing import Selection, list_images, own_places
from pagemill_worker.plan.request import ImagesRequest
from pagemill_worker.plan.rows import Candidates
from pagemill_worker.plan.sorting import Entry, Sorter


class ShuffledStore(MemoryStore):
    """Lists in an order that no store promises."""

    def list(self, prefix: str, *, limit: int | None = None) -> Iterator[ObjectInfo]:
        return iter(sorted(super().list(prefix, limit=limit), key=lambda info: info.key[::-1]))


def listed(request: ImagesRequest, scratch: Path, store: MemoryStore | None = None) -> Candidates:
    rows = Candidates([], [], [], [], [], [], [])
    scratch.mkdir(exist_ok=True)
    for batch in list_images(request, lambda _: store or MemoryStore("none"), scratch):
        rows.lines += batch.lines
        rows.ids += batch.ids
        rows.uris += batch.uris
        rows.sizes += batch.sizes
        rows.versions += batch.versions
    return rows


def folder_of(names: list[str], root: Path) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))
    return root


def store_of(names: list[str]) -> MemoryStore:
    store = ShuffledStore("lib")
    for name in names:
        store.put(f"in/{name}", b"x" * len(name))
    return store


PAGES = ["page_10.png", "page_2.PNG", "B.JPG", "a.jpg", "vol 1/p#1 ê.tif", "vol 1/日本.pdf", "z.webp"]
JUNK = ["._a.jpg", "Thumbs.db", "note.txt", ".hidden/a.png", "vol 1/.DS_Store", "vol 1/._p.png", "desktop.ini"]
WANT_IDS = ["B", "a", "page_10", "page_2", "vol 1/p#1 ê", "vol 1/日本", "z"]


def test_listing_folder_gives_pages_by_code_point_without_junk(tmp_path: Path) -> None:
    root = folder_of(PAGES + JUNK, tmp_path / "in")
    (root / "folder.jpg").mkdir()
    (root / "empty").mkdir()
    rows = listed(ImagesRequest(uri=str(root)), tmp_path / "scratch")
    assert rows.ids == WANT_IDS
    assert rows.lines == list(range(1, 8))
    assert rows.uris[4] == f"{root}/vol 1/p#1 ê.tif"
    seen = (root / "B.JPG").stat()
    assert (rows.sizes[0], rows.versions[0]) == (5, local_version(seen))


def test_listing_prefix_gives_the_same_as_the_folder(tmp_path: Path) -> None:
    store = store_of(PAGES + JUNK)
    rows = listed(ImagesRequest(uri="s3://lib/in"), tmp_path, store)
    assert rows.ids == WANT_IDS
    assert rows.uris[4] == "s3://lib/in/vol 1/p#1 ê.tif"
    info = store.head("in/B.JPG")
    assert info is not None
    assert (rows.sizes[0], rows.versions[0]) == (info.size, info.token)


def test_listing_prefix_is_a_folder_not_a_string_prefix(tmp_path: Path) -> None:
    store = store_of(["a.png"])
    store.put("in2/b.png", b"")
    assert listed(ImagesRequest(uri="s3://lib/in"), tmp_path, store).ids == ["a"]
    assert listed(ImagesRequest(uri="s3://lib/"), tmp_path, store).ids == ["in/a", "in2/b"]


def test_listing_natural_order_counts_numbers(tmp_path: Path) -> None:
    names = ["p10.png", "p2.png", "p02.png", "p1a.png", "p1.png", "10.png", "9.png"]
    rows = listed(ImagesRequest(uri="s3://lib/in", order="natural"), tmp_path, store_of(names))
    assert rows.ids == ["9", "10", "p1", "p1a", "p02", "p2", "p10"]


def test_listing_not_recursive_stays_in_the_folder(tmp_path: Path) -> None:
    root = folder_of(["a.png", "sub/b.png"], tmp_path / "in")
    assert listed(ImagesRequest(uri=str(root), recursive=False), tmp_path / "s").ids == ["a"]
    assert listed(ImagesRequest(uri="s3://lib/in", recursive=False), tmp_path, store_of(["a.png", "s/b.png"])).ids == [
        "a"
    ]


@pytest.mark.parametrize(
    ("include", "exclude", "want"),
    [
        (("*.png",), (), {"a.png", "a+(1).png", "sub/b.PNG", "sub/deep/c.png"}),
        (("*.png",), ("b.*",), {"a.png", "a+(1).png", "sub/deep/c.png"}),
        (("sub/*.png",), (), {"sub/b.PNG"}),
        (("sub/**/*.png",), (), {"sub/b.PNG", "sub/deep/c.png"}),
        (("**/deep/*",), (), {"sub/deep/c.png"}),
        (("?.png",), (), {"a.png", "sub/b.PNG", "sub/deep/c.png"}),
        (("[!a].p[mn]g",), (), {"sub/b.PNG", "sub/deep/c.png"}),
        (("[ab]*",), (), {"a.png", "sub/b.PNG", "a+(1).png", "a1.jpg"}),
        (("a+(1).png",), (), {"a+(1).png"}),
        (("sub?b.png",), (), set()),
        (("*",), ("sub/**",), {"a.png", "a+(1).png", "a1.jpg"}),
        ((), (), set()),
    ],
)
def test_selection_globs_match_names_or_relative_paths(
    include: tuple[str, ...], exclude: tuple[str, ...], want: set[str]
) -> None:
    names = ["a.png", "a1.jpg", "a+(1).png", "sub/b.PNG", "sub/deep/c.png"]
    selection = Selection.of(ImagesRequest(uri="/x", include=include, exclude=exclude))
    got = {name for name in names if selection.wants(name)}
    assert got == want


@pytest.mark.parametrize(
    ("source", "output", "prefixes", "want"),
    [
        ("s3://b/in", "s3://b/in/out", (), ("out/",)),
        ("s3://b/in/", "s3://b/in/out/", (), ("out/",)),
        ("s3://b/in", "s3://b/in2", (), ()),
        ("s3://b/in", "s3://b/", (), ()),
        ("s3://b/in", "s3://b/in", ("ocr_results", "dataset"), ("ocr_results/", "dataset/")),
        ("/data", "/data/x/../out", (), ("out/",)),
        ("s3://b/in", "", (), ()),
    ],
)
def test_own_places_are_the_output_inside_the_input(
    source: str, output: str, prefixes: tuple[str, ...], want: tuple[str, ...]
) -> None:
    assert own_places(ImagesRequest(uri=source, own_output_uri=output, own_prefixes=prefixes)) == want


def test_listing_does_not_read_its_own_output_again(tmp_path: Path) -> None:
    root = folder_of(["a.png", "out/ocr_results/a.pdf", "outer/b.png", ".pagemill/x.png"], tmp_path / "in")
    request = ImagesRequest(uri=str(root), own_output_uri=str(root / "out"))
    assert listed(request, tmp_path / "s").ids == ["a", "outer/b"]


def test_listing_empty_folder_has_no_rows(tmp_path: Path) -> None:
    assert listed(ImagesRequest(uri=str(folder_of([], tmp_path))), tmp_path / "s").ids == []


@pytest.mark.parametrize("name", ["none", "file.png"])
def test_listing_of_no_folder_says_so(name: str, tmp_path: Path) -> None:
    folder_of(["file.png"], tmp_path)
    with pytest.raises(SourceError, match="is not a folder"):
        listed(ImagesRequest(uri=str(tmp_path / name)), tmp_path / "s")


@pytest.mark.parametrize("uri", ["https://h/x/", "s3://b/a/../b"])
def test_listing_of_what_cannot_be_listed_says_so(uri: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        listed(ImagesRequest(uri=uri), tmp_path, MemoryStore("b"))


def test_listing_links_are_followed_once_and_dangling_ones_stay(tmp_path: Path) -> None:
    root = folder_of(["real/a.png"], tmp_path / "in")
    folder_of(["b.png"], tmp_path / "elsewhere")
    (root / "there").symlink_to(tmp_path / "elsewhere")
    (root / "real" / "up").symlink_to(root)
    (root / "gone.png").symlink_to(root / "nowhere")
    rows = listed(ImagesRequest(uri=str(root)), tmp_path / "s")
    assert rows.ids == ["gone", "real/a", "there/b"]
    assert (rows.sizes[0], rows.versions[0]) == (None, None)


def test_listing_names_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    root = folder_of([], tmp_path / "in")
    root.mkdir()
    (Path(os.fsdecode(os.fsencode(root) + b"/p\xff.png"))).write_bytes(b"")
    assert listed(ImagesRequest(uri=str(root)), tmp_path / "s").ids == ["p\udcff"]


@pytest.mark.parametrize("order", ["codePoint", "natural"])
def test_sorter_spilling_to_disk_gives_the_same_order(order: str, tmp_path: Path) -> None:
    names = [f"{number * 7919 % 1000:d}\udcff é" for number in range(1000)]
    small = Sorter(order, tmp_path, in_memory=64)  # type: ignore[arg-type]
    large = Sorter(order, tmp_path)  # type: ignore[arg-type]
    for name in names:
        small.add(Entry(name, len(name), "v"))
        large.add(Entry(name, len(name), "v"))
    assert list(small) == list(large)
    assert len(list(tmp_path.iterdir())) == 1000 // 64
