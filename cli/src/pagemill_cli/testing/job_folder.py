"""A job on disk with pages that are words: what fault tests run again and again.

Layer: `cli.testing`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class JobFolder:
    """`root/job.yaml`, `root/manifest.csv`, `root/pages/` and, once it ran, `root/out/`.

    `pages` maps ids to the text that the instant engine will find; None: the file is missing.
    """

    def __init__(self, root: Path, pages: Mapping[str, str | None], spec: Mapping[str, Any] | None = None) -> None:
        self.root = root
        self.output = root / "out"
        self.log = root / "begun"
        (root / "pages").mkdir(parents=True, exist_ok=True)
        self.set_pages(pages)
        self.set_spec(spec or {})

    @property
    def file(self) -> Path:
        return self.root / "job.yaml"

    def set_pages(self, pages: Mapping[str, str | None]) -> None:
        """Write the manifest and those pages whose text changed; remove the others."""
        for path in (self.root / "pages").iterdir():
            if path.stem not in pages:
                path.unlink()
        lines = ["canonical_id,absolute_image_path"]
        for item_id, text in pages.items():
            path = self.root / "pages" / f"{item_id}.png"
            lines.append(f"{item_id},{path}")
            if text is None:
                path.unlink(missing_ok=True)
            elif not path.exists() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")
        (self.root / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def set_spec(self, spec: Mapping[str, Any]) -> None:
        """Write the job's file; JSON is YAML."""
        job = {
            "apiVersion": "pagemill.dev/v1alpha1",
            "kind": "OcrJob",
            "metadata": {"name": "chaos"},
            "spec": {
                "source": {"manifest": {"uri": str(self.root / "manifest.csv")}},
                "output": {"uri": str(self.output)},
                "retries": {"maxFailedItems": "100%"},
                **spec,
            },
        }
        self.file.write_text(json.dumps(job), encoding="utf-8")

    def clear(self) -> None:
        """Forget everything that runs wrote."""
        shutil.rmtree(self.output, ignore_errors=True)
        self.log.unlink(missing_ok=True)

    def begun(self) -> list[str]:
        """The ids of items that the engine began, in order, over all runs."""
        return self.log.read_text(encoding="utf-8").split() if self.log.exists() else []
