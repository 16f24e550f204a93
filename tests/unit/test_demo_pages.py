"""The demo's pages: enough of them, of several kinds, under names that differ."""

from __future__ import annotations

import io
from pathlib import Path

import pypdfium2
from demo_pages import PageFile, all_pages
from PIL import Image


def test_demo_pages_are_forty_or_more_of_several_kinds() -> None:
    files = list(all_pages())
    assert sum(map(_count, files)) >= 40
    assert len({file.name for file in files}) == len(files)
    assert {Path(file.name).suffix for file in files} == {".png", ".jpg", ".pdf", ".tiff"}
    assert {Path(file.name).parts[0] for file in files} >= {"comics", "handbook", "license", "photos", "scans"}


def _count(file: PageFile) -> int:
    if file.name.endswith(".pdf"):
        return len(pypdfium2.PdfDocument(file.data))
    return int(getattr(Image.open(io.BytesIO(file.data)), "n_frames", 1))
