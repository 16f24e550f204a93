"""Reading objects: planned versions, caps, and whose fault a refusal is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pagemill_core.errors import (
    AccessDeniedError,
    FetchFailed,
    ImageMissing,
    ImageTooLarge,
    PagemillError,
    RetriableError,
    SourceChanged,
    StoreUnavailableError,
    ThrottledError,
)
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.storage.store import ObjectInfo
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_worker.fetch.http import HttpFetcher, HttpPolicy
from pagemill_worker.fetch.local import LocalFetcher
from pagemill_worker.fetch.objects import ObjectFetcher
from pagemill_worker.fetch.source import SourceFetcher

LIMIT = 1000
KEY = "Vol #1, ê … 100%/p 1.png"
URI = f"s3://library/{KEY}"


class RefusingStore(MemoryStore):
    """A store that raises `error` for reads of `denied` keys, and for listings when told so."""

    def __init__(self, error: PagemillError, *, denied: str | None = None, lists: bool = True) -> None:
        super().__init__()
        self.error = error
        self.denied = denied
        self.lists = lists

    def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
        self._refuse(key)
        return super().get_range(key, start, length, if_match=if_match)

    def head(self, key: str) -> ObjectInfo | None:
        self._refuse(key)
        return super().head(key)

    def list(self, prefix: str, *, limit: int | None = None) -> Iterator[ObjectInfo]:
        if not self.lists:
            raise self.error
        return super().list(prefix, limit=limit)

    def _refuse(self, key: str) -> None:
        if self.denied in (None, key):
            raise self.error


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore("library")
    store.put(KEY, b"picture")
    return store


def fetcher_of(store: MemoryStore) -> ObjectFetcher:
    return ObjectFetcher(lambda bucket: store)


def token_of(store: MemoryStore) -> str:
    info = store.head(KEY)
    assert info is not None
    return info.token


def test_fetch_object_gives_bytes_and_its_token(store: MemoryStore) -> None:
    fetched = fetcher_of(store).fetch(URI, max_bytes=LIMIT)
    assert fetched.data == b"picture"
    assert fetched.version == token_of(store)
    assert fetched.final_uri == URI


def test_fetch_planned_version_is_read_when_it_still_holds(store: MemoryStore) -> None:
    planned = token_of(store)
    assert fetcher_of(store).fetch(URI, expected_version=planned, max_bytes=LIMIT).version == planned
    store.put(KEY, b"another")
    with pytest.raises(SourceChanged, match="changed after it was planned"):
        fetcher_of(store).fetch(URI, expected_version=planned, max_bytes=LIMIT)


def test_fetch_if_changed_same_token_is_none(store: MemoryStore) -> None:
    fetcher = fetcher_of(store)
    assert fetcher.fetch_if_changed(URI, earlier_version=token_of(store), max_bytes=LIMIT) is None
    assert fetcher.fetch_if_changed(URI, earlier_version="another", max_bytes=LIMIT) is not None
    with pytest.raises(ImageMissing):
        fetcher.fetch_if_changed("s3://library/gone", earlier_version="1", max_bytes=LIMIT)


@pytest.mark.parametrize("expected", [None, "1"])
def test_fetch_absent_object_is_missing(store: MemoryStore, expected: str | None) -> None:
    with pytest.raises(ImageMissing) as caught:
        fetcher_of(store).fetch("s3://library/gone.png", expected_version=expected, max_bytes=LIMIT)
    assert caught.value.message == "Image file not found: s3://library/gone.png"


@pytest.mark.parametrize("planned", [True, False])
def test_fetch_larger_than_the_cap_is_too_large(store: MemoryStore, planned: bool) -> None:
    expected = token_of(store) if planned else None
    with pytest.raises(ImageTooLarge):
        fetcher_of(store).fetch(URI, expected_version=expected, max_bytes=6)
    assert fetcher_of(store).fetch(URI, expected_version=expected, max_bytes=7).data == b"picture"


def test_fetch_empty_object_gives_no_bytes(store: MemoryStore) -> None:
    store.put("empty", b"")
    assert fetcher_of(store).fetch("s3://library/empty", max_bytes=LIMIT).data == b""


@pytest.mark.parametrize("uri", ["s3://", "s3://library", "s3://library/", "s3:///key"])
def test_fetch_uri_without_bucket_or_key_fails(store: MemoryStore, uri: str) -> None:
    with pytest.raises(FetchFailed, match="names no object"):
        fetcher_of(store).fetch(uri, max_bytes=LIMIT)


@pytest.mark.parametrize("error", [StoreUnavailableError("down"), ThrottledError("slow down", retry_after_s=3)])
@pytest.mark.parametrize("expected", [None, "1"])
def test_fetch_store_in_trouble_is_no_items_fault(error: RetriableError, expected: str | None) -> None:
    with pytest.raises(type(error)) as caught:
        fetcher_of(RefusingStore(error)).fetch(URI, expected_version=expected, max_bytes=LIMIT)
    assert caught.value is error


def test_fetch_whole_bucket_denied_passes_through() -> None:
    denied = RefusingStore(AccessDeniedError("grant s3:GetObject"), lists=False)
    with pytest.raises(AccessDeniedError):
        fetcher_of(denied).fetch(URI, max_bytes=LIMIT)


def test_fetch_one_object_denied_fails_alone_when_the_bucket_may_be_listed() -> None:
    denied = RefusingStore(AccessDeniedError("no"), denied=KEY)
    with pytest.raises(FetchFailed, match="access to this object is denied"):
        fetcher_of(denied).fetch(URI, max_bytes=LIMIT)


def test_fetch_one_object_denied_fails_alone_when_others_were_read() -> None:
    store = RefusingStore(AccessDeniedError("no"), denied=KEY, lists=False)
    store.put("other", b"x")
    fetcher = fetcher_of(store)
    fetcher.fetch("s3://library/other", max_bytes=LIMIT)
    with pytest.raises(FetchFailed):
        fetcher.fetch_if_changed(URI, earlier_version="1", max_bytes=LIMIT)


def test_fetch_two_buckets_open_each_store_once() -> None:
    opened = []

    def open_source(bucket: str) -> MemoryStore:
        opened.append(bucket)
        store = MemoryStore(bucket)
        store.put("k", bucket.encode())
        return store

    fetcher = ObjectFetcher(open_source)
    for bucket in ("a", "b", "a", "b"):
        assert fetcher.fetch(f"s3://{bucket}/k", max_bytes=LIMIT).data == bucket.encode()
    assert opened == ["a", "b"]


class Door:
    """Stands for one of the three fetchers and remembers what came to it."""

    def __init__(self) -> None:
        self.uris: list[str] = []

    def fetch(self, uri: str, **_: object) -> None:
        self.uris.append(uri)

    fetch_if_changed = fetch


@pytest.mark.parametrize(
    ("uri", "want"),
    [
        ("/scans/p.png", "local"),
        ("scans/p.png", "local"),
        ("file:///scans/p.png", "local"),
        ("FILE:///scans/p.png", "local"),
        ("odd/name://p.png", "local"),
        ("s3://b/k", "objects"),
        ("S3://b/k", "objects"),
        ("http://h/p", "http"),
        ("HTTPS://h/p", "http"),
    ],
)
def test_source_fetcher_hands_each_uri_to_its_reader(uri: str, want: str, monkeypatch: pytest.MonkeyPatch) -> None:
    doors = {"local": Door(), "objects": Door(), "http": Door()}
    source = SourceFetcher(
        local=doors["local"],  # type: ignore[arg-type]
        objects=doors["objects"],  # type: ignore[arg-type]
        http=doors["http"],  # type: ignore[arg-type]
    )
    source.fetch(uri, max_bytes=LIMIT)
    source.fetch_if_changed(uri, earlier_version="1", max_bytes=LIMIT)
    assert {name: door.uris for name, door in doors.items() if door.uris} == {want: [uri, uri]}


@pytest.mark.parametrize("uri", ["ftp://h/p", "data://x", "gs://b/k"])
def test_source_fetcher_unknown_scheme_fails(uri: str) -> None:
    http = HttpFetcher(HttpPolicy(), FakeClock())
    source = SourceFetcher(local=LocalFetcher(), objects=ObjectFetcher(MemoryStore), http=http)
    with pytest.raises(FetchFailed, match="scheme"):
        source.fetch(uri, max_bytes=LIMIT)
    source.close()
