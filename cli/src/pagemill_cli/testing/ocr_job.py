"""An OcrJob for tests of the whole command: written as a file, run as a person would, its results read as a stranger.

Layer: `cli.testing`. `OcrResults` knows the documented names of an output and nothing of the code that wrote them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pagemill_cli.testing.command import Told, run_command
from pagemill_core.storage.store import ObjectStore


@dataclass
class OcrJobFile:
    """A job's file in `folder`. `spec` replaces or adds parts of a spec that reads with tesseract and never gives up.

    `environment` is what the command is run with; `processes` is how many engine processes.
    """

    folder: Path
    spec: Mapping[str, Any]
    name: str = "pages"
    environment: Mapping[str, str] = field(default_factory=dict)
    processes: int = 1

    @property
    def file(self) -> Path:
        return self.folder / f"{self.name}.yaml"

    @property
    def log(self) -> Path:
        """What engine processes printed."""
        return self.folder / f"{self.name}.log"

    def write(self) -> Path:
        """Write the file; JSON is YAML."""
        spec = {
            "engine": {"name": "tesseract"},
            "output": {"uri": str(self.folder / "out")},
            "retries": {"maxFailedItems": "100%"},
            **self.spec,
        }
        document = {
            "apiVersion": "pagemill.dev/v1alpha1",
            "kind": "OcrJob",
            "metadata": {"name": self.name},
            "spec": spec,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
        return self.file

    def run(self, *words: object, output: str = "json") -> Told:
        """`pagemill run` on the file, written first."""
        options = ("--processes", self.processes, "--log", self.log, "--output", output, "--quiet")
        return run_command("run", self.write(), *options, *words, environment=self.environment)


@dataclass(frozen=True)
class OcrResults:
    """What lies below an output."""

    store: ObjectStore
    prefix: str = "ocr_results"

    def listing(self, prefix: str = "") -> list[str]:
        """Every key below `prefix`, sorted."""
        return sorted(info.key for info in self.store.list(prefix))

    def tokens(self, prefix: str = "") -> dict[str, str]:
        """Every key with its version, to see later what was written again."""
        return {info.key: info.token for info in self.store.list(prefix)}

    def objects(self) -> Iterator[tuple[str, bytes]]:
        """Every object with its bytes."""
        return ((key, self.store.get(key).data) for key in self.listing())

    def raw(self, key: str) -> bytes:
        return self.store.get(key).data

    def page(self, item_id: str) -> dict[str, Any]:
        """A page's `_ocr.json`."""
        page: dict[str, Any] = json.loads(self.raw(f"{self.prefix}/{item_id}_ocr.json"))
        return page

    def pages(self) -> dict[str, dict[str, Any]]:
        """Every page's `_ocr.json` by the id that its key says."""
        suffix = "_ocr.json"
        names = [key for key in self.listing(f"{self.prefix}/") if key.endswith(suffix)]
        ids = [key.removeprefix(f"{self.prefix}/").removesuffix(suffix) for key in names]
        return {item_id: self.page(item_id) for item_id in ids}

    def summary(self, run: int = 1) -> dict[str, Any]:
        """The summary of a run, by its number."""
        summary: dict[str, Any] = json.loads(self.raw(f"summary/run={run:08d}.json"))
        return summary

    def statuses(self, run: int = 1) -> dict[str, dict[str, Any]]:
        """The summary's line of every item, by its id."""
        return {result["canonical_id"]: result for result in self.summary(run)["results"]}

    def rows(self, run: int = 1) -> list[dict[str, Any]]:
        """The dataset's rows of a run."""
        parts = self.listing(f"dataset/run={run:08d}/")
        return [row for key in parts for row in pq.read_table(io.BytesIO(self.raw(key))).to_pylist()]
