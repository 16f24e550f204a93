"""Makes the virtual environment that a make target runs in, and prints its interpreter.

Why it exists: `make demo` and `make test` work in a fresh clone with a Python and a package registry, no root and no
tool installed before. Layer: project tooling; standard library only, since it runs before anything is installed. All
it says goes to standard error; standard output holds the one path.

A stamp in the environment records what it was made of, so that a second call only reads a few files.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
MEMBERS = ("core", "operator", "worker", "cli")
# The oldest uv whose `pip sync --require-hashes` and `venv --clear` are used here.
OLDEST_UV = (0, 8)
SUPPORTED = ((3, 11), (3, 14))
UNAVAILABLE = 69


class BootstrapError(Exception):
    """The environment cannot be made; the text says what the user does next."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment and the compiled requirement file that fills it."""

    folder: Path
    requirements: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def stamp(self) -> Path:
        return self.folder / "pagemill-stamp"

    def digest(self) -> str:
        """What the environment is made of: pins, members, place. A moved checkout breaks editable installs."""
        digest = hashlib.sha256(str(ROOT).encode())
        for path in (self.requirements, *(ROOT / member / "pyproject.toml" for member in MEMBERS)):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def is_current(self) -> bool:
        """True when the stamp is of today's files and the interpreter is still there."""
        if not os.access(self.python, os.X_OK) or not self.stamp.is_file():
            return False
        return self.stamp.read_text(encoding="utf-8") == self.digest()


# The test environment holds all that the demos need: whoever has it need not install twice.
TEST = Environment(ROOT / ".venv", ROOT / "requirements" / "test.txt")
DEMO = Environment(ROOT / ".venv-demo", ROOT / "requirements" / "demo.txt")
DEMO_SEARCH = Environment(ROOT / ".venv-demo-search", ROOT / "requirements" / "demo-search.txt")
CHOICES = {"test": (TEST,), "demo": (TEST, DEMO), "demo-search": (TEST, DEMO_SEARCH)}


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def call(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> None:
    """Run a command with its output on standard error. Raises: BootstrapError when it fails."""
    result = subprocess.run(command, stdout=sys.stderr, env=env, check=False)
    if result.returncode != 0:
        raise BootstrapError(f"This command failed with status {result.returncode}: {' '.join(map(str, command))}")


@contextmanager
def only_one() -> Iterator[None]:
    """Let one bootstrap of this checkout run at a time; a second waits and then finds the work done."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "bootstrap.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def find_uv() -> Path:
    """The uv on PATH when it is new enough, else a private one of the pinned version below .cache."""
    on_path = shutil.which("uv")
    if on_path and _is_new_enough(on_path):
        return Path(on_path)
    return _private_uv()


def _is_new_enough(uv: str) -> bool:
    answer = subprocess.run([uv, "--version"], capture_output=True, text=True, check=False)
    version = re.match(r"uv (\d+)\.(\d+)", answer.stdout)
    return version is not None and (int(version[1]), int(version[2])) >= OLDEST_UV


def _private_uv() -> Path:
    pins = ROOT / "requirements" / "uv.txt"
    folder = CACHE / f"uv-{hashlib.sha256(pins.read_bytes()).hexdigest()[:12]}"
    uv = folder / "bin" / "uv"
    if os.access(uv, os.X_OK):
        return uv
    say("Installing uv below .cache ...")
    shutil.rmtree(folder, ignore_errors=True)
    _install_with_pip(folder, pins)
    return uv


def _install_with_pip(folder: Path, pins: Path) -> None:
    """Install `pins` so that `folder`/bin/uv exists, by a venv or, where Debian left ensurepip out, by pip itself."""
    arguments = ["install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", str(pins)]
    made = subprocess.run([sys.executable, "-m", "venv", folder], capture_output=True, check=False)
    if made.returncode == 0:
        call([folder / "bin" / "python", "-m", "pip", *arguments])
        return
    shutil.rmtree(folder, ignore_errors=True)
    has_pip = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False)
    if has_pip.returncode != 0:
        raise BootstrapError(
            f"{sys.executable} has neither venv nor pip. Install uv, or (Debian) `apt-get install python3-venv`."
        )
    # --target touches nothing of the system, but some versions of pip ask for this word all the same.
    call(
        [sys.executable, "-m", "pip", *arguments, "--target", folder], {**os.environ, "PIP_BREAK_SYSTEM_PACKAGES": "1"}
    )


def make(environment: Environment) -> None:
    """Create or update the environment. Idempotent; the stamp is removed first and written last."""
    began = time.monotonic()
    say(f"Preparing {environment.folder.name} from {environment.requirements.relative_to(ROOT)} ...")
    uv = find_uv()
    environment.stamp.unlink(missing_ok=True)
    if not _is_usable(environment.python):
        call([uv, "venv", "--quiet", "--clear", "--python", sys.executable, environment.folder])
    target = ["--python", str(environment.python)]
    quiet = [] if sys.stderr.isatty() else ["--quiet"]
    call([uv, "pip", "sync", *quiet, *target, "--require-hashes", environment.requirements])
    members = [argument for member in MEMBERS for argument in ("--editable", str(ROOT / member))]
    # The build backend is among the pins, so nothing unpinned is fetched to build the members.
    call([uv, "pip", "install", "--quiet", *target, "--no-deps", "--no-build-isolation", *members])
    environment.stamp.write_text(environment.digest(), encoding="utf-8")
    say(f"{environment.folder.name} is ready after {time.monotonic() - began:.0f} s.")


def _is_usable(python: Path) -> bool:
    if not os.access(python, os.X_OK):
        return False
    low, high = SUPPORTED
    probe = f"import sys; sys.exit(not {low} <= sys.version_info[:2] < {high})"
    return subprocess.run([python, "-c", probe], capture_output=True, check=False).returncode == 0


def prepare(name: str) -> Path:
    """The interpreter of the named environment, which is made or brought up to date first."""
    candidates = CHOICES[name]
    ready = next((each for each in candidates if each.is_current()), None)
    if ready is not None:
        return ready.python
    with only_one():
        if not candidates[-1].is_current():
            make(candidates[-1])
    return candidates[-1].python


def main() -> int:
    parser = argparse.ArgumentParser(description="Make a virtual environment and print its interpreter.")
    parser.add_argument("environment", choices=sorted(CHOICES))
    try:
        python = prepare(parser.parse_args().environment)
    except (BootstrapError, OSError) as error:
        say(f"Could not prepare the environment. {error}")
        return UNAVAILABLE
    sys.stdout.write(f"{python}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
