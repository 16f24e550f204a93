"""Compiles requirements/*.txt, the pins with hashes that every environment is made of.

Why it exists: the options that keep the files universal, hashed and free of any index's address stand in one place.
Layer: project tooling; calls uv, which already installed versions steer only through the existing files: a pin stays
unless its range moved or --upgrade is given.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass

from bootstrap import MEMBERS, ROOT, find_uv

OPTIONS = (
    *("--universal", "--python-version", "3.11", "--generate-hashes"),
    *("--no-emit-index-url", "--no-emit-find-links", "--no-header", "--annotation-style", "line", "--quiet"),
    *(word for member in MEMBERS for word in ("--no-emit-package", f"pagemill-{member}")),
)


@dataclass(frozen=True, slots=True)
class Target:
    """One compiled file and the arguments that say what goes into it."""

    name: str
    arguments: tuple[str, ...]


OVERRIDE = ("--override", "requirements/override.in")
TARGETS = (
    Target("uv.txt", ("requirements/uv.in",)),
    Target("image.txt", ("requirements/image.in",)),
    Target("checkov.txt", ("requirements/checkov.in",)),
    Target("operator.txt", ("operator/pyproject.toml", *OVERRIDE)),
    Target("worker.txt", ("worker/pyproject.toml",)),
    Target("worker-ocr.txt", ("worker/pyproject.toml", "--extra", "ocr")),
    Target("worker-paddle.txt", ("worker/pyproject.toml", "--extra", "paddle", *OVERRIDE)),
    Target("worker-easyocr.txt", ("worker/pyproject.toml", "--extra", "easyocr")),
    Target("worker-embed.txt", ("worker/pyproject.toml", "--extra", "embed")),
    Target(
        "demo-search.txt",
        ("pyproject.toml", "--extra", "embed", "--group", "build", "--group", "demo", "--group", "demo-search"),
    ),
    Target("demo.txt", ("pyproject.toml", "--extra", "ocr", "--group", "build", "--group", "demo")),
    Target(
        "test.txt",
        ("pyproject.toml", "--all-extras", "--group", "test", *OVERRIDE),
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile requirements/*.txt.")
    parser.add_argument("--upgrade", action="store_true", help="move pins to the newest versions allowed")
    upgrade = ["--upgrade"] if parser.parse_args().upgrade else []
    uv = str(find_uv())
    for target in TARGETS:
        output = f"requirements/{target.name}"
        command = [uv, "pip", "compile", *OPTIONS, *upgrade, *target.arguments, "-o", output]
        if subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode != 0:
            sys.stderr.write(f"Could not compile {output}.\n")
            return 1
        sys.stderr.write(f"Compiled {output}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
