"""What `core.storage.store` promises, asked of every backend: one suite, the same answers.

`store` is each backend, and S3 once more behind a proxy that loses replies, refuses, truncates and stalls. There a
conditional write may answer "unknown", and "exists" may mean "you, a moment ago": `create` and `swap_in` below settle
that the way any caller must, so that the semantics, not the single answers, are compared.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pagemill_core.errors import ObjectNotFoundError, PreconditionFailedError, RetriableError, UnsafeId
from pagemill_core.storage.folder import FolderStore
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.storage.probe import probe
from pagemill_core.storage.store import ObjectStore
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_core.testing.fault_proxy import FaultProxy, ProxyRates, ProxyRule
from pagemill_core.testing.seaweed import SeaweedServer

RACERS = 16
FAULTS = (
    ProxyRule(
        ProxyRates(conflict=0.1, slow_down=0.1, reply_lost=0.15, reset=0.05, slow=0.05, slow_s=0.01), conditional=True
    ),
    ProxyRule(
        ProxyRates(
            slow_down=0.05, unavailable=0.05, reset=0.05, reply_lost=0.05, truncated=0.05, slow=0.03, slow_s=0.01
        )
    ),
)
ODD_KEYS = (
    "plain.json",
    ".pagemill/runs/00000001.json",
    "a b/c d.json",
    "hash#tag.json",
    "per%20cent%.json",
    "plus+sign&and=more;x,y.json",
    "q?uestion*star~tilde!.json",
    "quote'\"<angle>.json",
    "pipe|caret^tick`{brace}[bracket].json",
    "ê/caf\u00e9.json",
    "ê/cafe\u0301.json",
    "日本語/頁一_ocr.json",
    "🙈/emoji.json",
    "deep/" + "/".join("abcdefgh") + "/x",
    "long/" + "x" * 200,
    "...",
    "dots../..x",
)
ESCAPES = (
    "",
    "/",
    "/etc/passwd",
    "..",
    ".",
    "../x",
    "a/../../x",
    "a/..",
    "a/./b",
    "..\\x",
    "a/b\\..\\..\\x",
    "a//b",
    "a/",
    "a\nb",
    "a\0b",
    "half\ud800pair",
    "x" * 1025,
)


@pytest.fixture
def memory_store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def folder_store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "root")


@pytest.fixture
def faulty_s3_store(s3_server: SeaweedServer) -> Iterator[ObjectStore]:
    with FaultProxy(s3_server.endpoint, FAULTS, seed=7) as proxy:
        store = s3_server.fresh_store(endpoint=proxy.endpoint, clock=FakeClock())
        yield store
        store.close()


@pytest.fixture(
    params=[
        "memory_store",
        "folder_store",
        pytest.param("s3_store", marks=pytest.mark.s3),
        pytest.param("faulty_s3_store", marks=pytest.mark.s3),
    ]
)
def store(request: pytest.FixtureRequest) -> ObjectStore:
    found: ObjectStore = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["memory_store", "folder_store", pytest.param("s3_store", marks=pytest.mark.s3)])
def exact_store(request: pytest.FixtureRequest) -> ObjectStore:
    """Backends that nothing disturbs, whose single answers count."""
    found: ObjectStore = request.getfixturevalue(request.param)
    return found


def ask(write: Callable[[], str | None]) -> str | None:
    """The first answer that is not "unknown"."""
    for _ in range(100):
        try:
            return write()
        except RetriableError:
            continue
    raise AssertionError("no answer in a hundred tries")


def create(store: ObjectStore, key: str, data: bytes) -> bool:
    """Whether `data`, which nobody else writes, is what was created."""
    return ask(lambda: store.put_if_absent(key, data)) is not None or store.get(key).data == data


def in_parallel(act: Callable[[int], bool]) -> list[bool]:
    with ThreadPoolExecutor(RACERS) as threads:
        return list(threads.map(act, range(RACERS)))


@pytest.mark.parametrize(
    "data", [b"", b"x", b"\0\xff" * 500, os.urandom((1 << 20) + 3)], ids=["empty", "byte", "binary", "mebibyte"]
)
def test_object_written_reads_back_whole(store: ObjectStore, data: bytes) -> None:
    token = store.put("a/b.bin", data)

    blob, info, (listed,) = store.get("a/b.bin"), store.head("a/b.bin"), store.list("a/")
    assert (blob.data, blob.token, dict(blob.meta)) == (data, token, {})
    assert info is not None
    assert (info.key, info.size, info.token) == ("a/b.bin", len(data), token)
    assert (listed.key, listed.size, listed.token, dict(listed.meta)) == ("a/b.bin", len(data), token, {})


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_key_is_kept_verbatim_by_every_operation(store: ObjectStore, key: str) -> None:
    assert create(store, key, b"one")
    token = store.get(key).token
    ask(lambda: store.put_if_match(key, b"two", token))

    info = store.head(key)
    assert info is not None and info.key == key
    assert store.get_range(key, 0, 2) == b"tw"
    assert [found.key for found in store.list("")] == [key]
    assert [found.key for found in store.list(key)] == [key]
    store.delete(key)
    assert list(store.list("")) == []


@pytest.mark.parametrize("store_name", ["memory_store", "folder_store"])
def test_backslash_is_a_character_like_others(store_name: str, request: pytest.FixtureRequest) -> None:
    store: ObjectStore = request.getfixturevalue(store_name)
    store.put("a\\b", b"backslash")
    store.put("a/b", b"slash")

    assert {found.key: store.get(found.key).data for found in store.list("")} == {"a\\b": b"backslash", "a/b": b"slash"}


@pytest.mark.s3
def test_backslash_reads_back_from_the_embedded_server_that_lists_it_as_a_slash(s3_store: ObjectStore) -> None:
    s3_store.put("a\\b", b"backslash")

    assert s3_store.get("a\\b").data == b"backslash"
    assert [found.key for found in s3_store.list("")] == ["a/b"]  # the server's own doing; AWS keeps the two apart


@pytest.mark.parametrize("key", ESCAPES, ids=range(len(ESCAPES)))
def test_key_that_could_leave_the_root_is_refused_by_every_write(store: ObjectStore, key: str) -> None:
    for write in (
        lambda: store.put(key, b""),
        lambda: store.put_if_absent(key, b""),
        lambda: store.put_if_match(key, b"", "token"),
        lambda: store.put_file(key, Path(__file__)),
        lambda: store.delete(key),
    ):
        with pytest.raises(UnsafeId):
            write()
    assert list(store.list("")) == []


@pytest.mark.parametrize("key", ["/etc/passwd", "../x", "a/../../etc/passwd", "."])
def test_key_that_could_leave_the_root_is_refused_by_every_read(store: ObjectStore, key: str) -> None:
    for read in (
        lambda: store.get(key),
        lambda: store.get_range(key, 0, 1),
        lambda: store.head(key),
        lambda: store.list(key),
    ):
        with pytest.raises(UnsafeId):
            read()


def test_token_changes_with_the_content(store: ObjectStore) -> None:
    tokens = [store.put("k", content) for content in (b"a", b"b", b"ab", b"")]

    assert len(set(tokens)) == len(tokens)


def test_token_of_every_write_is_what_reads_tell(exact_store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"four")
    first = exact_store.put_if_absent("k", b"one")
    assert first is not None and first == exact_store.get("k").token
    second = exact_store.put_if_match("k", b"two", first)
    assert second is not None and second == exact_store.get("k").token
    third = exact_store.put("k", b"three")
    assert third == exact_store.get("k").token
    fourth = exact_store.put_file("k", tmp_path / "file")
    assert fourth == exact_store.get("k").token
    assert len({first, second, third, fourth}) == 4


def test_meta_comes_back_and_goes_with_its_version(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"by file")
    want_meta = {"seq": "00000012", "crc32": "deadbeef", "note": "a b;c"}

    token = ask(lambda: store.put_if_absent("created", b"1", meta=want_meta)) or store.get("created").token
    ask(lambda: store.put_if_match("created", b"2", token, meta={"seq": "13"}))
    store.put("put", b"1", meta=want_meta)
    store.put_file("file", tmp_path / "file", meta=want_meta)

    assert dict(store.get("created").meta) == {"seq": "13"}
    for key in ("put", "file"):
        info = store.head(key)
        assert info is not None and dict(info.meta) == want_meta
        assert dict(store.get(key).meta) == want_meta
        store.put(key, b"without")
        assert dict(store.get(key).meta) == {}


@pytest.mark.parametrize(
    "meta",
    [{"Seq": "1"}, {"a_b": "1"}, {"seq": "ê"}, {"seq": " 1"}, {"seq": "1\n"}, {"seq": "x" * 3000}],
    ids=["upper", "underscore", "accent", "space", "newline", "long"],
)
def test_meta_that_no_store_keeps_is_refused(store: ObjectStore, meta: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="metadata"):
        store.put("k", b"", meta=meta)
    assert store.head("k") is None


@pytest.mark.parametrize(
    ("start", "length", "want"),
    [(0, 3, b"012"), (3, 4, b"3456"), (8, 10, b"89"), (10, 5, b""), (99, 5, b""), (4, 0, b""), (0, 99, b"0123456789")],
)
def test_range_is_cut_at_the_end(store: ObjectStore, start: int, length: int, want: bytes) -> None:
    token = store.put("k", b"0123456789")

    assert store.get_range("k", start, length) == want
    assert store.get_range("k", start, length, if_match=token) == want
    stale = token
    store.put("k", b"9876543210")
    with pytest.raises(PreconditionFailedError):
        store.get_range("k", start, length, if_match=stale)


def test_range_of_an_empty_object_is_empty(store: ObjectStore) -> None:
    store.put("k", b"")

    assert store.get_range("k", 0, 10) == b""


def test_missing_object_is_missing_to_every_operation(exact_store: ObjectStore) -> None:
    exact_store.put("there/x", b"")

    for read in (
        lambda: exact_store.get("gone"),
        lambda: exact_store.get("there"),
        lambda: exact_store.get("there/x/y"),
        lambda: exact_store.get_range("gone", 0, 1),
        lambda: exact_store.get_range("gone", 0, 0),
        lambda: exact_store.get_range("gone", 0, 1, if_match="token"),
    ):
        with pytest.raises(ObjectNotFoundError):
            read()
    assert exact_store.head("gone") is exact_store.head("there") is exact_store.head("there/x/y") is None
    assert exact_store.put_if_match("gone", b"", "token") is None
    exact_store.delete("gone")
    assert list(exact_store.list("gone")) == []
    assert exact_store.head("gone") is None


def test_create_of_an_existing_object_changes_nothing(exact_store: ObjectStore) -> None:
    token = exact_store.put_if_absent("k", b"first")

    assert exact_store.put_if_absent("k", b"second") is None
    assert (exact_store.get("k").data, exact_store.get("k").token) == (b"first", token)
    exact_store.delete("k")
    exact_store.delete("k")
    assert exact_store.put_if_absent("k", b"third") is not None


def test_creates_racing_have_exactly_one_winner(store: ObjectStore) -> None:
    won = in_parallel(lambda racer: create(store, "k", f"racer {racer}".encode()))

    assert won.count(True) == 1
    assert store.get("k").data == f"racer {won.index(True)}".encode()


def test_creates_racing_on_an_exact_store_tell_one_token(exact_store: ObjectStore) -> None:
    with ThreadPoolExecutor(RACERS) as threads:
        tokens = list(threads.map(lambda racer: exact_store.put_if_absent("k", b"%d" % racer), range(RACERS)))

    assert [token for token in tokens if token is not None] == [exact_store.get("k").token]


def test_swap_with_a_stale_token_is_refused(exact_store: ObjectStore) -> None:
    stale = exact_store.put("k", b"one")
    fresh = exact_store.put("k", b"two")

    assert exact_store.put_if_match("k", b"three", stale) is None
    assert exact_store.get("k").data == b"two"
    assert exact_store.put_if_match("k", b"three", fresh) is not None
    assert exact_store.put_if_match("k", b"four", fresh) is None
    assert exact_store.get("k").data == b"three"


def test_swaps_racing_lose_no_update(store: ObjectStore) -> None:
    store.put("k", b"[]")

    def add_three(racer: int) -> bool:
        for mark in (f"{racer}.{number}" for number in range(3)):
            for _ in range(1000):
                blob = store.get("k")
                marks = json.loads(blob.data)
                if mark in marks:  # by a try whose reply was lost
                    break
                data = json.dumps([*marks, mark]).encode()
                if ask(lambda data=data, blob=blob: store.put_if_match("k", data, blob.token)):  # type: ignore[misc]
                    break
        return True

    in_parallel(add_three)

    marks = json.loads(store.get("k").data)
    assert sorted(marks) == sorted(f"{racer}.{number}" for racer in range(RACERS) for number in range(3))


def test_listing_matches_the_prefix_as_a_string(store: ObjectStore) -> None:
    keys = [
        "a",
        "ab",
        "ab.c/d",
        "abc/d",
        "abc/de/f",
        "abd",
        "a b/c",
        "b",
        "ê/x",
        "ê/y",
        "日/本",
        "日/曜",
        "a+b",
        "a%2Bb",
        "a#",
    ]
    for key in keys:
        store.put(key, key.encode())

    for prefix in [
        "",
        "a",
        "ab",
        "ab.",
        "abc",
        "abc/",
        "abc/d",
        "abc/de/",
        "a ",
        "a+",
        "a%",
        "a#",
        "ê",
        "ê/",
        "日/",
        "c",
        "a//",
    ]:
        want = sorted(key for key in keys if key.startswith(prefix))
        assert sorted(found.key for found in store.list(prefix)) == want, prefix


def test_listing_of_more_than_a_page_is_whole_and_limited_at_will(exact_store: ObjectStore) -> None:
    want = {f"many/{number:04d}" for number in range(1005)}
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda key: exact_store.put(key, b""), want))
    exact_store.put("others/x", b"")

    assert {found.key for found in exact_store.list("many/")} == want
    for limit in (0, 1, 7, 1000, 1001, 1005, 2000):
        found = [info.key for info in exact_store.list("many/", limit=limit)]
        assert len(found) == len(set(found)) == min(limit, 1005)
        assert set(found) <= want


@pytest.mark.s3
def test_listing_of_several_pages_behind_faults_is_whole(
    s3_server: SeaweedServer, faulty_s3_store: ObjectStore
) -> None:
    _, _, bucket, prefix = faulty_s3_store.uri.split("/")
    undisturbed = s3_server.store(bucket, prefix)
    want = {f"many/{number:04d}" for number in range(2005)}
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda key: undisturbed.put(key, b""), want))

    for _ in range(5):
        found = [info.key for info in faulty_s3_store.list("many/")]
        assert len(found) == len(want) and set(found) == want


def test_file_is_stored_as_it_is(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "some file.bin"
    for data in (b"", os.urandom(3 << 20)):
        path.write_bytes(data)
        token = store.put_file("files/x", path)

        assert store.get("files/x").data == data
        assert store.get("files/x").token == token


def test_readers_during_rewrites_see_whole_versions(store: ObjectStore) -> None:
    versions = [bytes([number]) * (50_000 + number) for number in range(10)]
    store.put("k", versions[0])

    def read_or_write(racer: int) -> bool:
        if racer == 0:
            for version in versions:
                store.put("k", version)
            return True
        return all(store.get("k").data in versions for _ in range(5))

    assert all(in_parallel(read_or_write))


def test_probe_accepts_the_store_and_leaves_nothing(store: ObjectStore) -> None:
    report = probe(store)

    assert report.uri == store.uri
    assert list(store.list("")) == []


def test_listing_sees_what_was_just_written(store: ObjectStore) -> None:
    for number in itertools.count():
        token = store.put(f"n/{number}", str(number).encode())
        assert {found.key: found.token for found in store.list("n/")}[f"n/{number}"] == token
        if number == 20:
            return
