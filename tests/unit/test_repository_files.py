"""What must hold for every file of the repository, whatever it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Made on this machine and ignored by git; .ci is the one hidden folder that is committed.
NOT_COMMITTED = {"build", "demo", "dist", "__pycache__"}
COMMITTED_HIDDEN = {".ci"}
# In pieces, or this file would name them.
REGISTRIES = (
    "py" + r"pi\.org",
    "python" + r"hosted\.org",
    "npm" + r"js\.(org|com)",
    "yarn" + r"pkg\.com",
    "proxy" + r"\.golang\.org",
    "deb" + r"\.debian\.org",
    "download" + r"\.pytorch\.org",
    "index-url" + r"[ =]\S*//",
)
MACHINE_PATHS = (r"(?<![\w.~-])/(root|Users)/", r"(?<![\w.~-])/home/(?!pagemill\b)\w", r"[A-Z]:\\Users")


def committed_files() -> Iterator[Path]:
    """Every file of the tree but those that git ignores; by name, so that it also holds for an archive without git."""
    folders = [ROOT]
    while folders:
        for path in sorted(folders.pop().iterdir()):
            hidden = path.name.startswith(".") and path.name not in COMMITTED_HIDDEN
            if path.is_symlink():
                continue
            if path.is_dir() and not hidden and path.name not in NOT_COMMITTED and not path.name.endswith(".egg-info"):
                folders.append(path)
            elif path.is_file() and (not hidden or path.name == ".gitignore"):
                yield path


def matches(patterns: tuple[str, ...]) -> list[str]:
    """`path:line: text` of every line in a text file that matches one of the patterns."""
    either = re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
    found = []
    for path in committed_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or another binary file
        if not either.search(text):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if hit := either.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {hit[0]}")
    return found


def test_repository_root_operator_folder_never_becomes_a_package() -> None:
    # It would shadow the standard library's module of that name for everything started in the root.
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_repository_test_folders_have_no_init_files() -> None:
    assert [str(path) for path in (ROOT / "tests").rglob("__init__.py")] == []


def test_repository_test_files_have_unique_names() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]

    assert sorted(name for name in set(names) if names.count(name) > 1) == []


def test_repository_names_no_package_registry() -> None:
    assert matches(REGISTRIES) == []


def test_repository_names_no_path_of_a_machine() -> None:
    here = (re.escape(f"{ROOT}/"),) if len(ROOT.parts) > 2 else ()

    assert matches((*MACHINE_PATHS, *here)) == []


def test_repository_has_no_uv_lock() -> None:
    # It would hold the address of whoever's package index made it; the pins are in requirements/.
    assert not (ROOT / "uv.lock").exists()


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "requirements").glob("*.txt")))
def test_repository_requirements_are_pinned_with_hashes(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    pins = re.split(r"\n(?=[a-z0-9])", re.sub(r"(?m)^\s*#.*\n?", "", text).strip())

    unpinned = [pin.splitlines()[0] for pin in pins if "==" not in pin or "--hash=sha256:" not in pin]

    assert pins
    assert unpinned == []


def test_repository_requirements_for_tests_hold_one_opencv() -> None:
    # Two of them would overwrite each other's files.
    text = (ROOT / "requirements" / "test.txt").read_text(encoding="utf-8")

    assert re.findall(r"(?m)^(opencv[a-z-]*)==", text) == ["opencv-contrib-python"]


def test_repository_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in committed_files()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert broken == []
