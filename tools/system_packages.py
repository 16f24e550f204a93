"""Makes sure of the programs and libraries that the tests need and that no Python package brings.

Why it exists: tests never skip, so what they need is installed (as root on Debian) or named exactly. Layer: project
tooling; standard library only. It looks for each thing itself rather than for its package, so that it is right on
every system, and asks for Debian's packages by name.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

UNAVAILABLE = 69


@dataclass(frozen=True, slots=True)
class Need:
    """Something of the system; `package` is its name on Debian."""

    package: str
    reason: str
    is_there: Callable[[], bool]


def command(*names: str) -> Callable[[], bool]:
    return lambda: any(shutil.which(name) for name in names)


def library(name: str) -> Callable[[], bool]:
    def is_there() -> bool:
        try:
            ctypes.CDLL(name)
        except OSError:
            return False
        return True

    return is_there


def tesseract_language(code: str) -> Callable[[], bool]:
    def is_there() -> bool:
        if not shutil.which("tesseract"):
            return False
        listing = subprocess.run(["tesseract", "--list-langs"], capture_output=True, text=True, check=False)
        return code in (listing.stdout + listing.stderr).split()

    return is_there


NEEDS = (
    Need("tesseract-ocr", "the command that the tesseract engine is compared with", command("tesseract")),
    Need("tesseract-ocr-eng", "English language data", tesseract_language("eng")),
    Need("tesseract-ocr-fra", "French language data", tesseract_language("fra")),
    Need("parallel", "the baseline of the benchmarks", command("parallel")),
    Need("poppler-utils", "an independent reader of searchable PDF files", command("pdftotext")),
    Need(
        "chromium", "the browser that opens the HTML report", command("chromium", "chromium-browser", "google-chrome")
    ),
    # opencv-contrib-python, which paddlex insists on, is not a headless build.
    Need("libgl1", "a library of OpenCV", library("libGL.so.1")),
    Need("libglib2.0-0", "a library of OpenCV", library("libgthread-2.0.so.0")),
)


def missing() -> list[Need]:
    return [need for need in NEEDS if not need.is_there()]


def install(packages: Sequence[str]) -> bool:
    """Install Debian packages without a question. Returns: whether apt-get went well."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    steps = (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
    )
    # dpkg's own chatter is long; apt-get's errors go to standard error all the same.
    return all(
        subprocess.run(step, env=environment, stdout=subprocess.DEVNULL, check=False).returncode == 0 for step in steps
    )


def main() -> int:
    wanted = missing()
    if wanted and os.geteuid() == 0 and shutil.which("apt-get"):
        packages = [need.package for need in wanted]
        sys.stderr.write(f"Installing {' '.join(packages)} ...\n")
        install(packages)
        wanted = missing()
    if not wanted:
        return 0
    lines = [f"  {need.package:18} {need.reason}" for need in wanted]
    hint = f"sudo apt-get install --no-install-recommends {' '.join(need.package for need in wanted)}"
    sys.stderr.write(
        "\n".join(["The tests need these packages (Debian's names):", *lines, "Install them with:", f"  {hint}"]) + "\n"
    )
    return UNAVAILABLE


if __name__ == "__main__":
    sys.exit(main())
