"""Builds the cluster's programs from the Go modules in go/go.mod, once.

Layer: project tooling. Minutes from cold, nothing afterwards: each program is kept below the digest of what it is
built from, and is renamed into place when it is whole, so that a build that was cut short goes on where it stopped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from testcluster import layout, locks
from testcluster.errors import BuildError, tail
from testcluster.toolchain import environment, find_go


@dataclass(frozen=True, slots=True)
class Program:
    """A program by its name and the Go package that makes it."""

    name: str
    package: str
    is_kubernetes: bool = False


def _kubernetes(name: str) -> Program:
    return Program(name, f"k8s.io/kubernetes/cmd/{name}", is_kubernetes=True)


CONTROL_PLANE = (
    Program("etcd", "go.etcd.io/etcd/server/v3"),
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kubectl"),
    Program("kwok", "sigs.k8s.io/kwok/cmd/kwok"),
)
NODE = (
    _kubernetes("kubelet"),
    _kubernetes("kube-proxy"),
    Program("coredns", "./coredns"),
    Program("pause", "./pause"),
)
EXTRA = (Program("helm", "helm.sh/helm/v4/cmd/helm"),)
PROGRAMS = {program.name: program for program in (*CONTROL_PLANE, *NODE, *EXTRA)}


def kubernetes_version() -> str:
    """The version of Kubernetes in go.mod, such as v1.36.3."""
    text = (layout.GO_MODULE / "go.mod").read_text(encoding="utf-8")
    found = re.search(r"(?m)^\s*k8s\.io/kubernetes (v\S+)", text)
    if found is None:
        raise BuildError("go.mod does not name k8s.io/kubernetes")
    return found[1]


def linker_flags(program: Program) -> str:
    """Flags that leave debug tables out, and tell Kubernetes its version: without it the server calls itself v0.0.0."""
    flags = ["-s", "-w"]
    if program.is_kubernetes:
        version = kubernetes_version()
        major, minor = version.removeprefix("v").split(".")[:2]
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
            values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
            flags += [f"-X {package}.{name}={value}" for name, value in values.items()]
    return " ".join(flags)


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def ensure(names: Iterable[str], tell: Callable[[str], None] = say) -> Path:
    """Build what is missing of the named programs. Returns: the folder they are in.

    Idempotent; a second call at the same time waits for the first. Raises: BuildError, MissingError.
    """
    folder = layout.build_folder() / "bin"
    wanted = [PROGRAMS[name] for name in names]
    missing = [program for program in wanted if not (folder / program.name).is_file()]
    for number, program in enumerate(missing, 1):
        # One lock each: who needs only what is built already never waits.
        with locks.held(layout.build_folder() / "build.lock"):
            if (folder / program.name).is_file():
                continue
            folder.mkdir(parents=True, exist_ok=True)
            began = time.monotonic()
            tell(f"Building {program.name} ({number} of {len(missing)}) ...")
            _build(program, folder)
            tell(f"Built {program.name} in {time.monotonic() - began:.0f} s")
    return folder


def _build(program: Program, folder: Path) -> None:
    fresh = folder / f".{program.name}.new"
    log = layout.build_folder() / f"build-{program.name}.log"
    command: list[str | Path] = [find_go(), "build", "-ldflags", linker_flags(program), "-o", fresh, program.package]
    with log.open("wb") as output:
        made = subprocess.run(
            command, cwd=layout.GO_MODULE, env=environment(), stdout=output, stderr=output, check=False
        )
    if made.returncode != 0:
        raise BuildError(f"{program.name} could not be built; the next call goes on from here.\n{tail(log)}")
    os.replace(fresh, folder / program.name)


def prune() -> list[Path]:
    """Delete programs of other versions of go.mod. Returns: the folders that went."""
    root = layout.cache_root()
    old = [path for path in root.glob("*/bin") if path.parent != layout.build_folder() and len(path.parent.name) == 16]
    for path in old:
        shutil.rmtree(path.parent)
    return [path.parent for path in old]
