"""Reading local files: regular ones only, in the version that was planned."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from pagemill_core.errors import (
    FetchFailed,
    ForbiddenAddress,
    ImageMissing,
    ImageTooLarge,
    PagemillError,
    SourceChanged,
    StoreUnavailableError,
)
from pagemill_core.storage.folder import FolderStore
from pagemill_worker.fetch.fetched import local_version
from pagemill_worker.fetch.local import LocalFetcher

LIMIT = 1000


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "pages" / "Vol #1, ê … 100%.png"
    path.parent.mkdir()
    path.write_bytes(b"picture")
    return path


def test_fetch_path_gives_bytes_and_the_planners_version(page: Path) -> None:
    fetched = LocalFetcher().fetch(str(page), max_bytes=LIMIT)
    assert fetched.data == b"picture"
    assert fetched.version == local_version(page.stat())
    assert fetched.final_uri == str(page)


def test_fetch_file_uri_is_decoded(page: Path) -> None:
    assert LocalFetcher().fetch(page.as_uri(), max_bytes=LIMIT).data == b"picture"
    assert (
        LocalFetcher().fetch(page.as_uri().replace("file://", "file://localhost"), max_bytes=LIMIT).data == b"picture"
    )


def test_fetch_path_with_percent_signs_is_taken_verbatim(tmp_path: Path) -> None:
    (tmp_path / "a%20b.png").write_bytes(b"x")
    assert LocalFetcher().fetch(str(tmp_path / "a%20b.png"), max_bytes=LIMIT).data == b"x"


def test_fetch_file_uri_of_another_host_fails() -> None:
    with pytest.raises(FetchFailed, match="another host"):
        LocalFetcher().fetch("file://server/share/p.png", max_bytes=LIMIT)


@pytest.mark.parametrize("name", ["gone.png", "page.png/below", "x" * 300, "a\0b"])
def test_fetch_absent_file_is_missing(tmp_path: Path, name: str) -> None:
    (tmp_path / "page.png").write_bytes(b"x")
    with pytest.raises(ImageMissing) as caught:
        LocalFetcher().fetch(str(tmp_path / name), max_bytes=LIMIT)
    assert caught.value.message == f"Image file not found: {tmp_path / name}"


def test_fetch_other_version_than_planned_is_changed(page: Path) -> None:
    planned = local_version(page.stat())
    assert LocalFetcher().fetch(str(page), expected_version=planned, max_bytes=LIMIT).version == planned
    os.utime(page, ns=(1, 1))
    with pytest.raises(SourceChanged):
        LocalFetcher().fetch(str(page), expected_version=planned, max_bytes=LIMIT)


def test_fetch_version_is_what_a_listing_of_the_folder_gives(page: Path) -> None:
    listed = next(iter(FolderStore(page.parent).list("")))
    assert LocalFetcher().fetch(str(page), expected_version=listed.token, max_bytes=LIMIT).data == b"picture"


def test_fetch_if_changed_same_version_is_none(page: Path) -> None:
    version = local_version(page.stat())
    assert LocalFetcher().fetch_if_changed(str(page), earlier_version=version, max_bytes=LIMIT) is None
    fetched = LocalFetcher().fetch_if_changed(str(page), earlier_version="7-7", max_bytes=LIMIT)
    assert fetched is not None
    assert fetched.data == b"picture"


def test_fetch_larger_than_the_cap_is_too_large(page: Path) -> None:
    with pytest.raises(ImageTooLarge, match="7 bytes, more than the 6"):
        LocalFetcher().fetch(str(page), max_bytes=6)


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize("make", [make_fifo, Path.mkdir, make_socket], ids=["fifo", "folder", "socket"])
def test_fetch_no_regular_file_fails_and_does_not_block(
    tmp_path: Path, make: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    assert callable(make)
    make(Path("odd.png"))
    with pytest.raises(FetchFailed):
        LocalFetcher().fetch("odd.png", max_bytes=LIMIT)


def test_fetch_device_fails() -> None:
    with pytest.raises(FetchFailed, match="not a regular file"):
        LocalFetcher().fetch("/dev/zero", max_bytes=LIMIT)


@pytest.mark.parametrize(
    ("number", "want"),
    [
        (errno.EACCES, FetchFailed),
        (errno.EIO, FetchFailed),
        (errno.ELOOP, FetchFailed),
        (errno.ENOENT, ImageMissing),
        (errno.ESTALE, StoreUnavailableError),
        (errno.ENOTCONN, StoreUnavailableError),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
def test_fetch_system_error_tells_the_item_from_the_file_system(
    page: Path, monkeypatch: pytest.MonkeyPatch, number: int, want: type[PagemillError]
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(want) as caught:
        LocalFetcher().fetch(str(page), max_bytes=LIMIT)
    assert type(caught.value) is want


def test_fetch_outside_the_allowed_folders_is_forbidden_also_through_links(page: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("s3cr3t")
    (page.parent / "link.png").symlink_to(secret)
    fetcher = LocalFetcher(roots=[page.parent])
    assert fetcher.fetch(str(page), max_bytes=LIMIT).data == b"picture"
    for path in (secret, page.parent / "link.png", page.parent / ".." / "secret.txt", Path(f"{page.parent}-other/x")):
        with pytest.raises(ForbiddenAddress):
            fetcher.fetch(str(path), max_bytes=LIMIT)


def test_fetch_closes_every_file(page: Path, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    fetcher = LocalFetcher()
    for _ in range(20):
        fetcher.fetch(str(page), max_bytes=LIMIT)
        for path, limit in ((page, 1), (tmp_path, LIMIT)):
            with pytest.raises(PagemillError):
                fetcher.fetch(str(path), max_bytes=limit)
    assert len(os.listdir("/proc/self/fd")) <= before + 1
