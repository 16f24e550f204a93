"""URIs as users write them: which backend they name, and how they are taken apart and put together."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from pydantic import SecretStr

from pagemill_core.errors import InvalidSpecError
from pagemill_core.storage.folder import FolderStore
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.storage.open import SharedStores, is_local, join_uri, open_store, split_uri
from pagemill_core.storage.s3 import S3Store, locate_bucket
from pagemill_core.storage.s3_settings import S3Settings


@pytest.mark.parametrize(
    ("uri", "want_uri"),
    [
        ("s3://bucket", "s3://bucket/"),
        ("s3://bucket/", "s3://bucket/"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("S3://bucket/a b#%20/ê", "s3://bucket/a b#%20/ê"),
        ("/data/x/../out/", "/data/out"),
        ("file:///data/a%20b", "/data/a b"),
        ("file://localhost/data", "/data"),
        ("memory://some-name", "memory://some-name"),
    ],
)
def test_uri_opens_a_store_that_tells_it(uri: str, want_uri: str) -> None:
    assert open_store(uri).uri == want_uri


def test_path_is_taken_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    store = open_store("out/here")

    assert isinstance(store, FolderStore) and store.root == tmp_path / "out" / "here"
    assert list(store.list("")) == [] and not (tmp_path / "out").exists()


def test_memory_store_of_one_name_is_one_store() -> None:
    assert open_store("memory://shared-by-name") is open_store("memory://shared-by-name")
    assert isinstance(open_store("memory://another"), MemoryStore)


@pytest.mark.parametrize(
    "uri",
    ["", "gs://bucket/x", "http://host/x", "s3://", "s3:///key", "file://", "file://host/x", "s3://bu cket/x", "/a\0b"],
)
def test_uri_of_no_store_is_a_fault_of_the_spec(uri: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        open_store(uri)
    assert caught.value.advice


def test_presigned_url_is_refused_without_its_signature() -> None:
    with pytest.raises(InvalidSpecError) as caught:
        open_store("https://host/key?X-Amz-Signature=abcdef")
    assert "abcdef" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "want"),
    [
        ("s3://b/m.csv", ("s3://b/", "m.csv")),
        ("s3://b/a/m #1%.csv", ("s3://b/", "a/m #1%.csv")),
        ("memory://n/a/b", ("memory://n", "a/b")),
        ("/data/in/m.csv", ("/data/in", "m.csv")),
        ("file:///data/a%20b/m%231.csv", ("/data/a b", "m#1.csv")),
    ],
)
def test_object_uri_splits_into_root_and_key(uri: str, want: tuple[str, str]) -> None:
    assert split_uri(uri) == want


@pytest.mark.parametrize("uri", ["s3://b", "s3://b/", "s3://b/a/", "memory://n", "/", "gs://b/x"])
def test_uri_without_an_object_is_refused(uri: str) -> None:
    with pytest.raises(InvalidSpecError):
        split_uri(uri)


@pytest.mark.parametrize(
    ("root", "keys", "want"),
    [
        ("s3://b", ("a",), "s3://b/a"),
        ("s3://b/", ("/a", "b c#"), "s3://b/a/b c#"),
        ("s3://b/x/", ("y/",), "s3://b/x/y/"),
        ("/data", ("a", "b"), "/data/a/b"),
        ("file:///data", ("a b",), "file:///data/a%20b"),
    ],
)
def test_joining_puts_exactly_one_slash_between(root: str, keys: tuple[str, ...], want: str) -> None:
    assert join_uri(root, *keys) == want


def test_local_uris_are_told_from_remote_ones() -> None:
    assert is_local("out") and is_local("file:///x")
    assert not is_local("s3://b/x") and not is_local("memory://x")


@pytest.mark.parametrize(
    ("bucket", "settings", "region", "want"),
    [
        ("b", S3Settings(region="eu-west-1"), "", ("https://b.s3.eu-west-1.amazonaws.com", "", "eu-west-1")),
        ("b", S3Settings(), "", ("https://b.s3.us-east-1.amazonaws.com", "", "us-east-1")),
        ("b", S3Settings(), "cn-north-1", ("https://b.s3.cn-north-1.amazonaws.com.cn", "", "cn-north-1")),
        ("b.c", S3Settings(region="eu-west-1"), "", ("https://s3.eu-west-1.amazonaws.com", "/b.c", "eu-west-1")),
        ("b", S3Settings(addressing="path"), "", ("https://s3.us-east-1.amazonaws.com", "/b", "us-east-1")),
        ("b", S3Settings(endpoint="http://h:9000/"), "", ("http://h:9000", "/b", "us-east-1")),
        ("b", S3Settings(endpoint="https://h/s3", region="x"), "", ("https://h", "/s3/b", "x")),
        ("b", S3Settings(endpoint="https://h", addressing="virtual"), "", ("https://b.h", "", "us-east-1")),
    ],
)
def test_bucket_is_located(bucket: str, settings: S3Settings, region: str, want: tuple[str, str, str]) -> None:
    place = locate_bucket(bucket, settings, region)

    assert (place.origin, place.base_path, place.region) == want


def test_region_of_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-south-1")

    assert locate_bucket("b", S3Settings(), "").region == "ap-south-1"


def test_endpoint_that_is_no_url_is_a_fault_of_the_spec() -> None:
    store = S3Store("b", "", S3Settings(endpoint="minio:9000", access_key="a", secret_key=SecretStr("s")))

    with pytest.raises(InvalidSpecError, match="http or https"):
        store.get("k")


def test_stores_of_one_bucket_and_identity_share_connections() -> None:
    stores, settings = SharedStores(), S3Settings(endpoint="http://127.0.0.1:1", access_key="me", region="eu-1")

    one = stores.open("s3://library/a/b", settings)
    two = stores.open("s3://library/c", settings)
    other_bucket = stores.open("s3://archive/c", settings)
    other_user = stores.open("s3://library/c", settings.model_copy(update={"access_key": "you"}))

    assert isinstance(one, S3Store) and isinstance(two, S3Store)
    assert (one.uri, two.uri) == ("s3://library/a/b", "s3://library/c")
    clients = [store._client for store in (one, two, other_bucket, other_user) if isinstance(store, S3Store)]
    assert clients[0] is clients[1]
    assert len({id(client) for client in clients}) == 3


def test_shared_bucket_is_forgotten_with_its_last_store() -> None:
    stores, settings = SharedStores(), S3Settings(endpoint="http://127.0.0.1:1", access_key="me", region="eu-1")
    one = stores.open("s3://library/a", settings)
    two = stores.open("s3://library/b", settings)

    del one
    gc.collect()
    kept = len(stores._buckets)
    del two
    gc.collect()

    assert (kept, len(stores._buckets)) == (1, 0)


def test_shared_stores_open_folders_too(tmp_path: Path) -> None:
    assert SharedStores().open(str(tmp_path)).uri == str(tmp_path)
