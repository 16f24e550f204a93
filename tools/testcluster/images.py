"""Builds images from ordinary Dockerfiles without Docker, and loads them into a cluster's node.

Layer: project tooling; root, and Debian's buildah. The Dockerfile is built as it stands. What this machine needs to
reach its package registries, a certificate bundle or a pip.conf, is mounted for the build and is in no layer.
"""

from __future__ import annotations

import re
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testcluster import base_image, locks, requirements
from testcluster.cluster import Cluster
from testcluster.errors import BuildError, tail
from testcluster.layout import cache_root

_MACHINE_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")
_FROM = re.compile(r"(?im)^\s*FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?")
_ARG = re.compile(r"(?im)^\s*ARG\s+([A-Za-z_]\w*)=(\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """An image to build. A `tag` without a registry's host gets `localhost/`, so that no node looks elsewhere."""

    dockerfile: Path
    tag: str
    context: Path
    build_args: Mapping[str, str] = field(default_factory=dict)

    @property
    def image(self) -> str:
        return full_name(self.tag)


def full_name(tag: str) -> str:
    """The image's whole name, as a pod must spell it."""
    host = tag.split("/", 1)[0] if "/" in tag else ""
    is_host = "." in host or ":" in host or host == "localhost"
    name = tag if is_host else f"localhost/{tag}"
    return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"


def bases(dockerfile: str, build_args: Mapping[str, str]) -> list[str]:
    """The images that a Dockerfile starts from, each once, its own stages and `scratch` left out."""
    values = {**dict(_ARG.findall(dockerfile)), **build_args}
    stages: set[str] = set()
    found: list[str] = []
    for image, stage in _FROM.findall(dockerfile):
        named = re.sub(r"\$\{?(\w+)\}?", lambda match: values.get(match[1], ""), image)
        if named not in stages and named != "scratch" and named not in found:
            found.append(named)
        stages.add(stage)
    return found


def buildah() -> list[str]:
    """buildah on a store of our own. What it mounts, only it sees; a build that fails would leave mounts behind."""
    folder = cache_root() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    alone = ["unshare", "--mount", "--propagation=private", "--"]
    places = ["--root", str(folder / "store"), "--runroot", str(folder / "run")]
    return [*alone, "buildah", *places, "--storage-driver", "overlay"]


def build_image(
    dockerfile: Path, tag: str, *, build_args: Mapping[str, str] | None = None, context: Path | None = None
) -> str:
    """Build a Dockerfile; layers that did not change are kept. Returns: the image's whole name.

    Raises: BuildError with the end of the build's log, MissingError.
    """
    recipe = Recipe(dockerfile=dockerfile, tag=tag, context=context or dockerfile.parent, build_args=build_args or {})
    requirements.ensure_root()
    requirements.ensure_packages(requirements.IMAGE_NEEDS)
    log = _log(recipe.image)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    with locks.held(cache_root() / "images" / "build.lock"):
        for base in bases(dockerfile.read_text(encoding="utf-8"), recipe.build_args):
            base_image.ensure(base, buildah(), log)
        command = [*buildah(), "build", *_flags(recipe), str(recipe.context)]
        with log.open("ab") as output:
            made = subprocess.run(command, stdout=output, stderr=output, check=False)
            if made.returncode != 0:  # its half-made containers would pile up in the store
                subprocess.run([*buildah(), "rm", "--all"], stdout=output, stderr=output, check=False)
    if made.returncode != 0:
        raise BuildError(f"{recipe.image} could not be built\n{tail(log)}")
    return recipe.image


def _log(image: str) -> Path:
    name = image.rpartition(":")[0]  # one for all tags, or they would pile up
    return cache_root() / "images" / f"build-{re.sub(r'[^a-z0-9]+', '-', name)}.log"


def _flags(recipe: Recipe) -> list[str]:
    mounts = [f"--volume={path}:{path}:ro" for path in _MACHINE_FILES if Path(path).is_file()]
    arguments = [f"--build-arg={name}={value}" for name, value in recipe.build_args.items()]
    return [
        f"--file={recipe.dockerfile}",
        f"--tag={recipe.image}",
        "--isolation=chroot",
        "--network=host",
        "--layers",
        "--pull=never",
        "--format=docker",
        *mounts,
        *arguments,
    ]


def load_image(cluster: Cluster, tag: str) -> None:
    """Load a built image into the cluster's node; pods name it with `imagePullPolicy: Never`. Raises: BuildError."""
    image = full_name(tag)
    archive = cluster.layout.folder / f"load-{secrets.token_hex(4)}.tar"
    try:
        push = [*buildah(), "push", "--quiet", image, f"docker-archive:{archive}:{image}"]
        _run(push, cluster.layout.log("load-image"))
        load_archive(cluster, archive)
    finally:
        archive.unlink(missing_ok=True)


def remove_image(tag: str) -> None:
    """Forget a built image; layers that others share stay. Raises: BuildError."""
    image = full_name(tag)
    _run([*buildah(), "rmi", "--force", image], _log(image))


def run_in_image(tag: str, command: Sequence[str]) -> str:
    """Run a command in a built image as the user that it names. Returns: what it printed. Raises: BuildError."""
    container = _output_of([*buildah(), "from", "--pull=never", full_name(tag)])
    try:
        return _output_of([*buildah(), "run", "--isolation=chroot", container, "--", *command])
    finally:
        _output_of([*buildah(), "rm", container])


def describe_image(tag: str) -> str:
    """What a built image says of itself, as JSON. Raises: BuildError."""
    return _output_of([*buildah(), "inspect", "--type=image", full_name(tag)])


def _output_of(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command[-4:])} failed with status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def load_archive(cluster: Cluster, archive: Path) -> None:
    """Load an image from a file, as `docker save` writes them. Raises: BuildError."""
    command = ["ctr", "--address=/run/containerd.sock", "--namespace=k8s.io", "images", "import", str(archive)]
    _run(cluster.inside(command), cluster.layout.log("load-image"))


def _run(command: list[str], log: Path) -> None:
    with log.open("ab") as output:
        done = subprocess.run(command, stdout=output, stderr=output, check=False)
    if done.returncode != 0:
        raise BuildError(f"{command[0]} failed with status {done.returncode}\n{tail(log)}")
