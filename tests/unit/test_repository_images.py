"""The Dockerfiles and the pins they install: what can be seen without building them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = ("Dockerfile.operator", "Dockerfile.worker")


def lines_of(name: str) -> list[str]:
    """The instructions of a Dockerfile, each on one line, comments left out."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / name).read_text(encoding="utf-8"))
    return [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_dockerfile_ends_as_nobody_without_the_tools_it_built_with(name: str) -> None:
    lines = lines_of(name)
    last = lines[max(at for at, line in enumerate(lines) if line.startswith("FROM")) :]

    assert "USER 65532:65532" in last
    assert [line for line in last if line.startswith("COPY --from")] == [
        "COPY --from=dependencies /opt/pagemill /opt/pagemill",
        "COPY --from=own /own /opt/pagemill",
    ]
    assert not [line for line in last if re.search(r"\b(pip|gcc|build-essential)\b", line)]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_dockerfile_installs_pinned_wheels_alone(name: str) -> None:
    installs = [line for line in lines_of(name) if "pip" in line and "-r " in line]

    assert installs
    for line in installs:
        parts = [part for part in line.split("&&") if " install " in part]
        assert all("--require-hashes" in part and "--only-binary :all:" in part for part in parts)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_dockerfile_copies_sources_after_dependencies(name: str) -> None:
    lines = lines_of(name)
    copies = [at for at, line in enumerate(lines) if line.startswith("COPY core")]
    installs = [at for at, line in enumerate(lines) if "--require-hashes" in line]

    assert max(installs) < min(copies), "a changed line of ours would install everything again"


def test_worker_image_has_pins_for_every_extra() -> None:
    project = tomllib.loads((ROOT / "worker" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(project["optional-dependencies"])

    assert {path.stem.removeprefix("worker-") for path in (ROOT / "requirements").glob("worker-*.txt")} == extras
    text = (ROOT / "Dockerfile.worker").read_text(encoding="utf-8")
    assert all(re.search(rf"#.*\b{extra}\b", text) for extra in extras)
