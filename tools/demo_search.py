"""`make demo-search`: real photographs become vectors and an index, then a sentence and a picture find them.

Project tooling; everything it makes lies in demo/. A second call finds the work done.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from demo_model import build
from demo_photos import all_photos
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "demo"
MODELS = FOLDER / "models"
JOB = "config/samples/embeddingjob-demo.yaml"
QUERIES = (
    ("coffee", ("a cup of coffee",)),
    ("cat", ("--image", "demo/photos/chelsea.png")),
)


def main() -> int:
    """Make the model and the photographs ready, run the job, search. Returns: the first exit status that is not 0."""
    console = Console()
    started = time.monotonic()
    count = _photos(FOLDER / "photos")
    if not (MODELS / "demo-conse").is_dir():
        console.print("Building the model demo-conse from two packages …")
        build(MODELS / "demo-conse")
    console.print(f"{count} photographs from packages in demo/photos\n")
    status = _pagemill(console, "run", JOB)
    for name, query in QUERIES:
        if status == 0:
            sheet = f"demo/search-{name}.html"
            status = _pagemill(console, "search", "demo/search", *query, "--k", "5", "--sheet", sheet)
    if status == 0:
        console.print(f"[bold]{time.monotonic() - started:.0f} s[/] in all. Next:", highlight=False)
        console.print("  xdg-open demo/search-coffee.html", "  make demo-search      again: nothing to do", sep="\n")
        console.print(f"  PAGEMILL_MODELS_DIR={MODELS} {_program()} search demo/search 'a horse'", highlight=False)
    return status


def _photos(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, data in all_photos():
        count += 1
        if not (folder / name).is_file():
            (folder / name).write_bytes(data)
    return count


def _program() -> Path:
    return Path(sys.executable).parent / "pagemill"


def _pagemill(console: Console, *words: str) -> int:
    shown = " ".join(f'"{word}"' if " " in word else word for word in words)
    console.print(f"[bold]$ pagemill {shown}[/]", highlight=False)
    environment = {**os.environ, "PAGEMILL_MODELS_DIR": str(MODELS)}
    return subprocess.run([_program(), *words], cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
