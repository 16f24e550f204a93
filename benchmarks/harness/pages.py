"""The pages that are read: the demo's, as files on disk, by kind.

Layer: `benchmarks.harness`. Made once and kept below the work folder; nothing is fetched.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import itertools
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from benchmarks.harness.place import ROOT, Place

Kind = Literal["mixed", "comics", "documents", "scans", "notes"]
_SEED = 7
_NOTES = 250
_WORDS = (
    "page",
    "counted",
    "shard",
    "wave",
    "nothing",
    "lost",
    "commit",
    "ledger",
    "marker",
    "balloon",
    "panel",
    "scan",
    "read",
    "twice",
    "once",
    "done",
)


def pages(place: Place, kind: Kind) -> list[Path]:
    """The files of one kind, in an order that mixes easy and hard pages and is the same every time.

    mixed: all single-page pictures of the demo; comics: its pages with balloons; documents: its typeset pages, A5 at
    150 dpi; scans: the same as a scanner makes them, A4 at 300 dpi; notes: small pictures of a few words, each of
    another size.
    """
    folder = place.work / "pages" / _digest() / kind
    if not folder.is_dir():
        draft = folder.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for name, data in _MAKERS[kind]():
            (draft / name).write_bytes(data)
        draft.rename(folder)
    found = sorted(folder.iterdir())
    random.Random(_SEED).shuffle(found)
    return found


def repeated(files: list[Path], count: int) -> list[Path]:
    """`count` pages: all of `files`, again and again."""
    return list(itertools.islice(itertools.cycle(files), count))


def _digest() -> str:
    makers = (ROOT / "tools" / "demo_pages.py", Path(__file__))
    return hashlib.sha256(b"".join(path.read_bytes() for path in makers)).hexdigest()[:12]


def _demo() -> Iterator[tuple[str, bytes]]:
    tools = str(ROOT / "tools")
    if tools not in sys.path:
        sys.path.insert(0, tools)
    for page in importlib.import_module("demo_pages").all_pages():
        if page.name.endswith((".png", ".jpg")):
            yield page.name.replace("/", "__"), page.data


def _of(prefix: str) -> Callable[[], Iterator[tuple[str, bytes]]]:
    return lambda: ((name, data) for name, data in _demo() if name.startswith(prefix))


def _scans() -> Iterator[tuple[str, bytes]]:
    for name, data in itertools.islice(_of("license")(), 4):
        page = Image.open(io.BytesIO(data)).convert("RGB").resize((2480, 3508), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        page.save(out, "JPEG", quality=88, dpi=(300, 300))
        yield name.replace(".png", ".jpg"), out.getvalue()


def _notes() -> Iterator[tuple[str, bytes]]:
    chance = random.Random(_SEED)
    font = ImageFont.load_default(24)
    for number in range(_NOTES):
        size = (chance.randrange(300, 620), chance.randrange(90, 200))
        picture = Image.new("RGB", size, "white")
        line = " ".join(chance.choice(_WORDS) for _ in range(size[0] // 110))
        draw = ImageDraw.Draw(picture)
        for top in range(20, size[1] - 40, 44):
            draw.text((16, top), line, font=font, fill="black")
        out = io.BytesIO()
        picture.save(out, "PNG", dpi=(150, 150))
        yield f"note_{number:04}.png", out.getvalue()


_MAKERS: Mapping[Kind, Callable[[], Iterator[tuple[str, bytes]]]] = {
    "mixed": _demo,
    "comics": _of("comics"),
    "documents": _of("license"),
    "scans": _scans,
    "notes": _notes,
}
