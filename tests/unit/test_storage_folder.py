"""FolderStore on a real file system: plain files, full disks, links, and what lies beside the objects."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pagemill_core.errors import (
    AccessDeniedError,
    IntegrityError,
    PagemillError,
    StoreUnavailableError,
    StoreUnsuitableError,
    UnsafeId,
)
from pagemill_core.storage import folder_files
from pagemill_core.storage.folder import FolderStore
from pagemill_core.storage.folder_files import PRIVATE_FOLDER
from pagemill_core.storage.store import ObjectStore

WRITES: dict[str, Callable[[ObjectStore, str], object]] = {
    "put": lambda store, key: store.put(key, b"new"),
    "put_if_absent": lambda store, key: store.put_if_absent(key, b"new"),
    "put_file": lambda store, key: store.put_file(key, Path(__file__)),
}


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "root", fsync=False)


def raising(number: int) -> Callable[..., object]:
    def fail(*_: object, **__: object) -> object:
        raise OSError(number, os.strerror(number))

    return fail


def left_over(store: FolderStore) -> list[str]:
    """Private files other than the lock."""
    private = store.root / PRIVATE_FOLDER
    return [str(path.relative_to(private)) for path in private.rglob("*") if path.is_file() and path.name != "lock"]


def test_objects_are_plain_files_with_nothing_beside_them(store: FolderStore) -> None:
    store.put("ocr_results/a b_ocr.json", b"{}\n", meta={"seq": "1"})
    store.put_if_absent("x", b"1")

    files = sorted(path.relative_to(store.root).as_posix() for path in store.root.rglob("*") if path.is_file())
    assert [name for name in files if not name.startswith(PRIVATE_FOLDER)] == ["ocr_results/a b_ocr.json", "x"]
    assert (store.root / "ocr_results" / "a b_ocr.json").read_bytes() == b"{}\n"
    mask = os.umask(0)
    os.umask(mask)
    assert (store.root / "x").stat().st_mode & 0o777 == 0o666 & ~mask


def test_looking_at_a_folder_writes_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "page.png").write_bytes(b"png")
    store, missing = FolderStore(tmp_path), FolderStore(tmp_path / "missing")

    assert [found.key for found in store.list("")] == ["page.png"]
    assert store.get("page.png").data == b"png" and store.head("page.png") is not None
    assert store.put_if_match("page.png", b"", "stale") is None
    assert list(missing.list("")) == [] and missing.head("x") is None
    missing.delete("x")
    assert os.listdir(tmp_path) == ["page.png"]


def test_tokens_of_quick_writes_of_one_size_never_repeat(store: FolderStore) -> None:
    tokens = [store.put("k", b"%04d" % number) for number in range(500)]

    assert len(set(tokens)) == 500


def test_file_changed_by_another_program_has_another_token(store: FolderStore) -> None:
    token = store.put("k", b"ours")
    (store.root / "k").write_bytes(b"edited")

    assert store.get("k").data == b"edited"
    assert store.get("k").token != token
    assert store.put_if_match("k", b"new", token) is None


def test_metadata_of_old_versions_is_dropped(store: FolderStore) -> None:
    for number in range(5):
        store.put("k", b"x", meta={"seq": str(number)})
    assert len(left_over(store)) == 1
    token = store.get("k").token
    store.put_if_match("k", b"y", token, meta={"seq": "9"})
    assert store.put_if_absent("k", b"z", meta={"seq": "10"}) is None
    assert store.put_if_match("k", b"z", token, meta={"seq": "11"}) is None
    assert len(left_over(store)) == 1 and dict(store.get("k").meta) == {"seq": "9"}
    store.put("k", b"x")
    assert left_over(store) == []
    store.put("k", b"x", meta={"seq": "12"})
    store.delete("k")
    assert left_over(store) == []


def test_damaged_metadata_is_told(store: FolderStore) -> None:
    store.put("k", b"x", meta={"seq": "1"})
    (store.root / PRIVATE_FOLDER / left_over(store)[0]).write_bytes(b"{")

    with pytest.raises(IntegrityError, match="'k'"):
        store.get("k")


def test_deleting_the_last_object_of_a_folder_frees_its_name(store: FolderStore) -> None:
    store.put("a/b/c", b"")
    store.put("a/d", b"")
    store.delete("a/b/c")
    assert os.listdir(store.root / "a") == ["d"]
    store.delete("a/d")

    store.put("a", b"now a file")
    assert store.get("a").data == b"now a file"


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_key_where_a_folder_is_is_refused(store: FolderStore, write: Callable[[ObjectStore, str], object]) -> None:
    store.put("a/b", b"")

    with pytest.raises(UnsafeId, match="'a' is a folder") as caught:
        write(store, "a")
    assert caught.value.advice
    assert store.get("a/b").data == b""


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_key_below_an_object_is_refused(store: FolderStore, write: Callable[[ObjectStore, str], object]) -> None:
    store.put("a", b"kept")

    with pytest.raises(UnsafeId, match="an object has that name"):
        write(store, "a/b/c")
    assert store.get("a").data == b"kept"


def test_links_are_listed_but_not_followed(store: FolderStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    store.put("inside", b"")
    (store.root / "file").symlink_to(outside / "secret")
    (store.root / "folder").symlink_to(outside)

    assert sorted(found.key for found in store.list("")) == ["file", "folder", "inside"]
    for key in ("file", "folder", "folder/secret"):
        for read in (store.get, store.head, lambda key: store.get_range(key, 0, 1)):
            with pytest.raises(UnsafeId, match="symbolic link"):
                read(key)
    for key in ("file", "folder", "folder/new", "folder/deep/new"):
        for write in (*WRITES.values(), lambda store, key: store.delete(key)):
            with pytest.raises(UnsafeId, match="symbolic link"):
                write(store, key)
    with pytest.raises(UnsafeId, match="symbolic link"):
        list(store.list("folder/"))
    assert os.listdir(outside) == ["secret"] and (outside / "secret").read_bytes() == b"secret"


def test_root_that_is_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")

    FolderStore(tmp_path / "link").put("k", b"1")

    assert (tmp_path / "real" / "k").read_bytes() == b"1"


@pytest.mark.parametrize("key", [PRIVATE_FOLDER, f"{PRIVATE_FOLDER}/lock", f"a/{PRIVATE_FOLDER}/x"])
def test_private_folder_cannot_be_reached_or_listed(store: FolderStore, key: str) -> None:
    store.put("k", b"", meta={"seq": "1"})

    for act in (store.get, store.head, store.delete, lambda key: store.put(key, b"")):
        with pytest.raises(UnsafeId, match="own folder"):
            act(key)
    assert [found.key for found in store.list("")] == ["k"]
    assert list(store.list(PRIVATE_FOLDER)) == []


@pytest.mark.parametrize("what", ["pipe", "folder"])
def test_what_is_no_file_is_no_object(store: FolderStore, what: str) -> None:
    store.put("k", b"")
    if what == "pipe":
        os.mkfifo(store.root / "odd")
    else:
        (store.root / "odd").mkdir()

    assert store.head("odd") is None
    assert [found.key for found in store.list("")] == ["k"]
    with pytest.raises(PagemillError, match="there is no 'odd'"):
        store.get("odd")


def test_name_that_is_not_utf8_is_listed_and_refused_in_words(store: FolderStore) -> None:
    store.put("k", b"")
    with open(os.fsencode(store.root) + b"/bad\xff", "wb"):
        pass

    bad = next(found.key for found in store.list("") if found.key != "k")
    with pytest.raises(UnsafeId, match="surrogate"):
        store.get(bad)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("call", ["open", "mkdir", "write", "fsync", "show"])
def test_full_disk_is_unavailable_with_advice_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[ObjectStore, str], object], call: str
) -> None:
    store = FolderStore(tmp_path)
    store.put("seen", b"before")
    with monkeypatch.context() as patch:
        for name in ("link", "rename") if call == "show" else (call,):
            patch.setattr(folder_files.os, name, raising(errno.ENOSPC))
        if call == "write":  # put_file copies through a file object, which flushes on close
            patch.setattr("shutil.copyfileobj", raising(errno.ENOSPC))
        with pytest.raises(StoreUnavailableError, match="No space left") as caught:
            write(store, "deep/new")
    assert "disk space" in caught.value.advice
    assert [found.key for found in store.list("")] == ["seen"]
    assert left_over(store) == []


@pytest.mark.parametrize(
    ("number", "want"),
    [
        (errno.ENOSPC, StoreUnavailableError),
        (errno.EDQUOT, StoreUnavailableError),
        (errno.EACCES, AccessDeniedError),
        (errno.EPERM, AccessDeniedError),
        (errno.EROFS, AccessDeniedError),
        (errno.ENAMETOOLONG, UnsafeId),
        (errno.EXDEV, StoreUnsuitableError),
        (errno.ENOTDIR, StoreUnsuitableError),
        (errno.EEXIST, StoreUnsuitableError),
        (errno.EIO, StoreUnavailableError),
        (errno.ESTALE, StoreUnavailableError),
        (errno.EMFILE, StoreUnavailableError),
    ],
)
def test_error_of_the_system_is_mapped(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch, number: int, want: type[PagemillError]
) -> None:
    store.put("seen", b"")
    monkeypatch.setattr(folder_files.os, "rename", raising(number))

    with pytest.raises(want, match="'k'"):
        store.put("k", b"")


def test_name_longer_than_the_file_system_takes_is_refused(store: FolderStore) -> None:
    with pytest.raises(UnsafeId, match="longer than the file system takes"):
        store.put("x" * 300, b"")


def test_file_system_without_links_is_unsuitable(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_files.os, "link", raising(errno.EOPNOTSUPP))

    for act in (lambda: store.put_if_absent("k", b""), store.check_file_system):
        with pytest.raises(StoreUnsuitableError, match="hard links"):
            act()


def test_file_system_whose_lock_holds_nobody_is_unsuitable(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_files.fcntl, "flock", lambda *_: None)

    with pytest.raises(StoreUnsuitableError, match="both got the lock"):
        store.check_file_system()


def test_file_system_with_coarse_stamps_is_unsuitable(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    utime = os.utime
    monkeypatch.setattr(folder_files.os, "utime", lambda file, ns: utime(file, (1_700_000_000, 1_700_000_000)))

    with pytest.raises(StoreUnsuitableError, match="fine time stamps"):
        store.check_file_system()


def test_check_of_a_good_file_system_leaves_nothing(store: FolderStore) -> None:
    store.check_file_system()

    assert left_over(store) == []


def test_lock_that_a_stopped_process_holds_is_told(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("k", b"")
    monkeypatch.setattr(folder_files, "_LOCK_PATIENCE_S", 0.0)
    monkeypatch.setattr(folder_files.time, "sleep", lambda _: None)

    with (store.root / PRIVATE_FOLDER / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreUnavailableError, match="holds the lock"):
            store.put("k", b"")
        assert store.put_if_absent("new", b"") is not None  # creating needs no lock
    store.put("k", b"")


def test_temporary_files_of_dead_writers_are_swept_after_a_day(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store.root / PRIVATE_FOLDER / "tmp"
    folder.mkdir(parents=True)
    (folder / "dead").write_bytes(b"half")
    store.put("k", b"")
    assert (folder / "dead").exists()

    now_s = time.time()
    monkeypatch.setattr(folder_files.time, "time", lambda: now_s + 90_000)
    FolderStore(store.root, fsync=False).put("k", b"")
    assert os.listdir(folder) == []


def test_folder_removed_while_writing_is_made_again(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("a/b", b"")
    link, calls = os.link, []

    def link_after_a_race(*args: object, **kwargs: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            store.delete("a/b")  # takes the folder with it
        link(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(folder_files.os, "link", link_after_a_race)

    assert store.put_if_absent("a/c", b"1") is not None
    assert store.get("a/c").data == b"1"
