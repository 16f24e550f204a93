"""`make demo`: real pages into an embedded S3 server, read by `pagemill run`, shown beside their text.

Project tooling; everything it makes lies in demo/. A second call finds the work done.
"""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import time
from pathlib import Path

from demo_pages import all_pages
from rich.console import Console
from rich.markup import escape

from pagemill_core.storage.embedded_s3 import EmbeddedS3
from pagemill_core.storage.open import open_store
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.storage.store import ObjectStore

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "demo"
BUCKET = "pagemill-demo"
PRICE_PER_HOUR = "0.10"  # about what two cores cost somewhere, so that the display has a cost to show
JOB = "config/samples/ocrjob-demo.yaml"


def main() -> int:
    """Make the pages, run the job, fetch the report. Returns: the exit status of `pagemill run`."""
    console = Console()
    started = time.monotonic()
    with EmbeddedS3(FOLDER / "s3") as server:
        settings = server.settings()
        server.create_bucket(BUCKET)
        store = open_store(f"s3://{BUCKET}/", settings)
        if store.head("manifest.csv") is None:
            count = _fill(store)
            console.print(f"Made {count} files of pages and put them into s3://{BUCKET}/pages ({server.endpoint})")
        command = [str(Path(sys.executable).parent / "pagemill"), "run", JOB]
        console.print(f"[bold]$ pagemill run {JOB}[/]", highlight=False)
        status = subprocess.run(command, cwd=ROOT, env={**os.environ, **_variables(settings)}, check=False).returncode
        if status == 0:
            _show(console, store, settings, time.monotonic() - started)
    return status


def _fill(store: ObjectStore) -> int:
    manifest = io.StringIO()
    table = csv.writer(manifest)
    table.writerow(["canonical_id", "absolute_image_path"])
    count = 0
    for page in all_pages():
        store.put(f"pages/{page.name}", page.data)
        table.writerow([page.name.rpartition(".")[0], page.name])
        count += 1
    store.put("manifest.csv", manifest.getvalue().encode())
    return count


def _variables(settings: S3Settings) -> dict[str, str]:
    return {
        "PAGEMILL_PRICE_PER_HOUR": PRICE_PER_HOUR,
        "PAGEMILL_S3_ENDPOINT": settings.endpoint,
        "PAGEMILL_S3_REGION": settings.region,
        "PAGEMILL_S3_ACCESS_KEY": settings.access_key,
        "PAGEMILL_S3_SECRET_KEY": settings.secret_key.get_secret_value(),
    }


def _show(console: Console, store: ObjectStore, settings: S3Settings, seconds: float) -> None:
    """One page's text, where the report lies, what to type next. The environment file holds the server's secret."""
    report = FOLDER / "report.html"
    report.write_bytes(store.get("out/report.html").data)
    for found in store.list("out/ocr_results/"):  # so that the report's links lead somewhere
        copy = FOLDER / found.key.removeprefix("out/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(store.get(found.key).data)
    variables = FOLDER / "s3.env"
    variables.touch(mode=0o600)
    variables.write_text("".join(f"export {name}={value}\n" for name, value in _variables(settings).items()))
    text = store.get("out/ocr_results/comics/Night Mill/page_001.txt").data.decode()
    console.print("\n[bold]comics/Night Mill/page_001[/] reads:", highlight=False)
    console.print(escape("\n".join(f"    {line}" for line in text.strip().splitlines()[:8])), highlight=False)
    console.print(f"\n[bold]{seconds:.0f} s[/] in all. Pages beside their text, with boxes: [bold]{report}[/]\n")
    console.print("Next:", "  make demo                                    again: 0 items to do, in seconds", sep="\n")
    console.print("  xdg-open demo/report.html", "  $EDITOR config/samples/ocrjob-demo.yaml", sep="\n", highlight=False)
    console.print("  .venv-demo/bin/pagemill --help" if ".venv-demo" in sys.executable else "  pagemill --help")


if __name__ == "__main__":
    sys.exit(main())
