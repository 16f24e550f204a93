"""Base images where no image registry can be reached: made from Debian's packages under the name that FROM uses.

Why it exists: the project's Dockerfiles start from the official Python image; a machine that reaches only package
registries must still be able to build them, unchanged. Layer: project tooling; root, debootstrap. The stand-in has
Debian's Python of that release in the official image's places; it is for tests, never for publishing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from testcluster.errors import BuildError, tail
from testcluster.layout import cache_root

# python:3.11-slim-bookworm, with or without the registry's name: Python's version and Debian's release.
_PYTHON = re.compile(r"(?:docker\.io/)?(?:library/)?python:(3\.\d+)(?:\.\d+)?-slim-([a-z]+)")
_PULL_PATIENCE_S = 60.0
_CLEAN = {
    "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "DEBIAN_FRONTEND": "noninteractive",
    "LANG": "C.UTF-8",
}
_SLIM = "path-exclude /usr/share/doc/*\npath-exclude /usr/share/man/*\npath-exclude /usr/share/locale/*\n"
_RUBBISH = (
    "var/lib/apt/lists/*",
    "var/cache/apt/archives/*.deb",
    "var/log/*.log",
    "usr/share/doc/*",
    "usr/share/man/*",
    "usr/share/locale/[a-z]*",
    "tmp/*",
)


def ensure(name: str, buildah: list[str], log: Path) -> None:
    """See that buildah has a base image: kept from before, pulled, or made. Raises: BuildError."""
    if _succeeds([*buildah, "inspect", "--type=image", name]):
        return
    if _succeeds([*buildah, "pull", "--quiet", name], log):
        return
    found = _PYTHON.fullmatch(name)
    if found is None:
        raise BuildError(f"{name} cannot be pulled, and there is no stand-in for it\n{tail(log)}")
    sys.stderr.write(f"No registry gives {name}; making a stand-in from Debian's packages ...\n")
    _make_python(name, found[1], found[2], buildah, log)


def _succeeds(command: list[str], log: Path | None = None) -> bool:
    with (log or Path(os.devnull)).open("ab") as output:
        try:
            done = subprocess.run(command, stdout=output, stderr=output, timeout=_PULL_PATIENCE_S, check=False)
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0


def _make_python(name: str, version: str, release: str, buildah: list[str], log: Path) -> None:
    root = cache_root() / "images" / "base"
    shutil.rmtree(root, ignore_errors=True)
    _run(["debootstrap", "--variant=minbase", "--include=ca-certificates,netbase,tzdata", release, str(root)], log)
    _use_the_machines_sources(root)
    (root / "etc/dpkg/dpkg.cfg.d/slim").write_text(_SLIM, encoding="utf-8")
    policy = root / "usr/sbin/policy-rc.d"  # no package may start a service
    policy.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    policy.chmod(0o755)
    for words in (
        ["apt-get", "-qq", "update"],
        ["apt-get", "-qq", "upgrade", "-y"],
        ["apt-get", "-qq", "install", "-y", "--no-install-recommends", f"python{version}-venv"],
    ):
        _run(["chroot", str(root), *words], log)
    _put_python_where_the_official_image_has_it(root, version, log)
    for pattern in _RUBBISH:
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    _commit(name, version, root, buildah, log)
    shutil.rmtree(root, ignore_errors=True)


def _use_the_machines_sources(root: Path) -> None:
    """Let apt inside ask where apt outside does."""
    for path in (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d")):
        target = root / path.relative_to("/")
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        elif path.is_file():
            shutil.copy(path, target)


def _put_python_where_the_official_image_has_it(root: Path, version: str, log: Path) -> None:
    """/usr/local/bin/python and a pip that may install into the system, from the wheel that Debian ships for venv."""
    local = root / "usr/local/bin"
    for link, target in ((f"python{version}", f"/usr/bin/python{version}"), ("python3", f"python{version}")):
        (local / link).symlink_to(target)
    (local / "python").symlink_to("python3")
    (root / f"usr/lib/python{version}/EXTERNALLY-MANAGED").unlink(missing_ok=True)
    wheel = next((root / "usr/share/python-wheels").glob("pip-*.whl")).relative_to(root)
    pip = ["python3", f"/{wheel}/pip", "install", "--no-index", "--no-cache-dir", "--root-user-action=ignore"]
    _run(["chroot", str(root), *pip, f"/{wheel}"], log)


def _commit(name: str, version: str, root: Path, buildah: list[str], log: Path) -> None:
    container = subprocess.run([*buildah, "from", "scratch"], capture_output=True, text=True, check=True).stdout.strip()
    settings = {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "PYTHON_VERSION": version}
    environment = [f"--env={key}={value}" for key, value in {**settings, "LANG": "C.UTF-8"}.items()]
    _run([*buildah, "copy", "--quiet", container, str(root), "/"], log)
    _run([*buildah, "config", "--cmd=python3", *environment, container], log)
    _run([*buildah, "commit", "--quiet", "--rm", container, name], log)


def _run(command: list[str], log: Path) -> None:
    with log.open("ab") as output:
        done = subprocess.run(command, stdout=output, stderr=output, env={**os.environ, **_CLEAN}, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command[:3])} ... failed with status {done.returncode}\n{tail(log)}")
