"""The programs that judge the chart: built from Go modules, taken from Debian's archive or from PyPI, once.

Layer: project tooling. Each is kept below the test cluster's cache, under the digest of what it is made of. Nothing is
installed on the machine and no root is needed. Versions stand in go/*/go.mod and requirements/checkov.txt.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bootstrap import ROOT, find_uv
from testcluster import binaries, layout, locks
from testcluster.errors import BuildError, MissingError, tail
from testcluster.toolchain import environment, find_go

GO = Path(__file__).resolve().parent / "go"
CHECKOV_PINS = ROOT / "requirements" / "checkov.txt"
PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator"


@dataclass(frozen=True, slots=True)
class Program:
    """A program, the go.mod (a folder below go/) that names its version, its package, and values for its linker."""

    name: str
    module: str
    package: str
    values: tuple[str, ...] = ()


# As the released helm 3 is built; without, it takes every cluster that it does not ask for version 1.20.
_KUBERNETES_OF_HELM = tuple(
    f"helm.sh/helm/v3/pkg/{package}.k8sVersion{part}={number}"
    for package in ("chartutil", "lint/rules")
    for part, number in (("Major", 1), ("Minor", 36))
)
PROGRAMS = {
    program.name: program
    for program in (
        Program("helm3", "checkers", "helm.sh/helm/v3/cmd/helm", _KUBERNETES_OF_HELM),
        Program("helm-unittest", "checkers", "github.com/helm-unittest/helm-unittest/cmd/helm-unittest"),
        Program("helm-docs", "checkers", "github.com/norwoodj/helm-docs/cmd/helm-docs"),
        Program("kubeconform", "checkers", "github.com/yannh/kubeconform/cmd/kubeconform"),
        Program("kube-score", "kube-score", "github.com/zegl/kube-score/cmd/kube-score"),
    )
}
# Not built here, but had by the same call: of the test cluster's go.mod, Debian's archive, and PyPI.
FROM_CLUSTER = ("helm", "kubectl")
FROM_DEBIAN = ("promtool", "prometheus")
FROM_PYPI = ("checkov",)
ALL = (*PROGRAMS, *FROM_CLUSTER, *FROM_DEBIAN, *FROM_PYPI)


def root() -> Path:
    """The folder of everything that is made here."""
    return layout.cache_root() / "chart"


def ensure(names: Iterable[str]) -> None:
    """Make what is missing of the named programs; idempotent. Raises: BuildError, MissingError."""
    wanted = sorted(set(names))
    binaries.ensure(name for name in wanted if name in FROM_CLUSTER)
    for name in wanted:
        if name in PROGRAMS:
            _once(path_of(name), name, functools.partial(_build, PROGRAMS[name]))
        elif name in FROM_DEBIAN and not shutil.which(name):
            _once(_debian_folder() / "usr" / "bin" / name, name, lambda _: _unpack_prometheus())
        elif name in FROM_PYPI:
            _once(path_of(name), name, lambda _: _make_checkov())


def path_of(name: str) -> Path:
    """Where a program of ALL is, once `ensure` was called for it."""
    if name in PROGRAMS:
        return root() / _digest(GO / PROGRAMS[name].module, *PROGRAMS[name].values) / name
    if name in FROM_CLUSTER:
        return layout.binary(name)
    if name in FROM_DEBIAN:
        return Path(shutil.which(name) or _debian_folder() / "usr" / "bin" / name)
    return root() / f"checkov-{_digest(CHECKOV_PINS)}" / "bin" / "checkov"


def monitoring_crds() -> list[Path]:
    """The CRDs of prometheus-operator whose kinds the chart uses, from its Go module. Raises: BuildError."""
    log = root() / "monitoring.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [find_go(), "mod", "download", "-json", PROMETHEUS_OPERATOR]
    with log.open("wb") as errors:
        made = subprocess.run(
            command, cwd=GO / "monitoring", env=environment(), stdout=subprocess.PIPE, stderr=errors, check=False
        )
    if made.returncode != 0:
        raise BuildError(f"The CRDs of prometheus-operator could not be had.\n{tail(log)}")
    folder = Path(json.loads(made.stdout)["Dir"]) / "example" / "prometheus-operator-crd"
    plurals = ("podmonitors", "prometheusrules", "servicemonitors")
    return [folder / f"monitoring.coreos.com_{plural}.yaml" for plural in plurals]


def _digest(path: Path, *values: str) -> str:
    digest = hashlib.sha256(" ".join(values).encode())
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _once(path: Path, name: str, make: Callable[[Path], None]) -> None:
    """Call `make` unless `path` is there; it may write beside `path` first, and is told where."""
    if path.exists():
        return
    with locks.held(root() / f"{name}.lock"):
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        sys.stderr.write(f"Making {name} ...\n")
        make(path.with_name(f".{name}.new"))
        sys.stderr.write(f"Made {name} in {time.monotonic() - began:.0f} s\n")


def _build(program: Program, fresh: Path) -> None:
    log = root() / f"build-{program.name}.log"
    flags = " ".join(["-s -w", *(f"-X {value}" for value in program.values)])
    command: list[str | Path] = [find_go(), "build", "-ldflags", flags, "-o", fresh, program.package]
    _run(command, log, cwd=GO / program.module, env=environment())
    os.replace(fresh, fresh.with_name(program.name))


def _debian_folder() -> Path:
    return root() / "debian"


def _unpack_prometheus() -> None:
    """Debian's package, unpacked and not installed: no user, no service. Both programs are in it."""
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise MissingError("prometheus and promtool are not on PATH; install them (Debian's package is prometheus)")
    folder = root() / "debian.new"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = root() / "debian.log"
    if os.geteuid() == 0:
        _run(["apt-get", "update", "-qq"], log)
    _run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", "prometheus"], log, cwd=folder)
    (package,) = folder.glob("prometheus_*.deb")
    _run(["dpkg", "-x", package, folder], log)
    package.unlink()
    shutil.rmtree(_debian_folder(), ignore_errors=True)
    folder.rename(_debian_folder())


def _make_checkov() -> None:
    """An environment of its own: its many pins would bind ours."""
    folder = path_of("checkov").parent.parent
    log = root() / "checkov.log"
    shutil.rmtree(folder, ignore_errors=True)
    uv = find_uv()
    _run([uv, "venv", "--quiet", "--python", sys.executable, folder], log)
    python = folder / "bin" / "python"
    try:
        _run([uv, "pip", "sync", "--quiet", "--python", python, "--require-hashes", CHECKOV_PINS], log)
    except BuildError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _run(
    command: Sequence[str | Path], log: Path, *, cwd: Path | None = None, env: dict[str, str] | None = None
) -> None:
    with log.open("wb") as output:
        done = subprocess.run(command, cwd=cwd, env=env, stdout=output, stderr=output, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(map(str, command[:3]))} … failed.\n{tail(log)}")
