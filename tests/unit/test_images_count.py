"""Pages are counted by reading little, and as the loader will number them."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from pagemill_core.errors import ImageTruncated, ImageUnsupported, NotAnImage, StoreUnavailableError
from pagemill_core.testing import image_bytes
from pagemill_core.testing.odd_images import ODD_IMAGES
from pagemill_worker.images.count import BlockReader, is_multipage, page_count
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.images.load import load_page

BY_NAME = {odd.name: odd for odd in ODD_IMAGES}


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("pdf-page-2", 2),
        ("pdf-one-page", 1),
        ("tiff-page-1", 3),
        ("tiff-fax-page-2", 2),
        ("tiff-big", 1),
        ("tiff-thumbnail-first", 1),
        ("jpeg-plain", 1),
        ("gif-animated", 1),
        ("mpo", 1),
        ("empty", 1),
    ],
)
def test_page_count_counts_pages_and_not_frames_or_thumbnails(name: str, want: int) -> None:
    assert page_count(BY_NAME[name].make(), origin="x") == want


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("pdf-locked", ImageUnsupported),
        ("tiff-pages-in-a-circle", ImageTruncated),
        ("html", NotAnImage),
        ("tiff-lzw-cut-50%", ImageTruncated),
    ],
)
def test_page_count_of_a_bad_file_fails_as_the_loader_would(name: str, want: type[Exception]) -> None:
    with pytest.raises(want, match="x: "):
        page_count(BY_NAME[name].make(), origin="x")


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("a/b.PDF", True),
        ("a/b.tif", True),
        ("b.tiff", True),
        ("https://h/x.pdf?sig=a.png", True),
        ("s3://b/Vol #1?.tiff", True),
        ("file:///a/b#2.tif", True),
        ("b.png", False),
        ("https://h/x.png?f=a.pdf", False),
        ("pdf", False),
    ],
)
def test_is_multipage_goes_by_the_suffix(name: str, want: bool) -> None:
    assert is_multipage(name) is want


def big_tiff_file() -> bytes:
    """40 uncompressed pages of 250 KB."""
    page = bytes(500 * 500)
    return image_bytes.tiff([(image_bytes.grey_strip_tags(500, 500, len(page)), page)] * 40)


def big_pdf_file() -> bytes:
    return image_bytes.pdf(["0 0 9 9 re f " + "% padding\n" * 20_000] * 40)


@pytest.mark.parametrize("make", [big_tiff_file, big_pdf_file])
def test_page_count_through_ranges_reads_a_part_only(make: object) -> None:
    assert callable(make)
    data: bytes = make()
    asked: list[int] = []

    def read_range(start: int, length: int) -> bytes:
        asked.append(length)
        return data[start : start + length]

    assert page_count(BlockReader(read_range, len(data)), origin="x") == 40  # type: ignore[arg-type]
    assert sum(asked) < len(data)
    assert len(asked) <= 45


@pytest.mark.parametrize("name", ["tiff-page-1", "pdf-page-2"])
def test_page_count_store_in_trouble_is_no_files_fault(name: str) -> None:
    data = BY_NAME[name].make() + (b"\n" * 400_000 if name.startswith("pdf") else b"")
    reads = 0

    def read_range(start: int, length: int) -> bytes:
        nonlocal reads
        reads += 1
        if reads > 1 or name.startswith("tiff"):
            raise StoreUnavailableError("down")
        return data[start : start + length]

    with pytest.raises(StoreUnavailableError):
        page_count(BlockReader(read_range, len(data)), origin="x")  # type: ignore[arg-type]


def test_block_reader_reads_like_a_file() -> None:
    data = bytes(range(256)) * 3000
    reader = BlockReader(lambda start, length: data[start : start + length], len(data))
    plain = io.BytesIO(data)
    for offset, whence, size in [(0, 0, 10), (131_070, 0, 4), (-5, 2, 100), (5, 1, 3), (10**9, 0, 5), (0, 0, -1)]:
        assert reader.seek(offset, whence) == plain.seek(offset, whence)
        assert reader.read(size) == plain.read(size)
        assert reader.tell() == plain.tell()
    assert reader.readable()
    assert reader.seekable()


def test_load_page_numbers_pages_as_they_were_counted() -> None:
    greys = [10, 90, 170, 250]
    pages = [Image.new("L", (8, 8), grey) for grey in greys]
    data = image_bytes.encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    count = page_count(data, origin="x")
    found = [load_page(data, page=n, limits=ImageLimits(), origin="x").pixels[4, 4, 0] for n in range(count)]
    assert found == greys
