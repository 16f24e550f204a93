"""Files of many pages are fetched once, failures are not kept, and little is kept altogether."""

from __future__ import annotations

import threading

import pytest

from pagemill_core.errors import FetchFailed
from pagemill_worker.fetch.fetched import Fetched, Span, shown_uri
from pagemill_worker.fetch.recent import RecentFetcher


class CountingFetcher:
    """Gives `size` bytes for any URI, after `gate` opens, and fails the first `failures` times."""

    def __init__(self, size: int = 10, failures: int = 0) -> None:
        self.size = size
        self.failures = failures
        self.asked: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def fetch(self, uri: str, *, expected_version: str | None = None, max_bytes: int) -> Fetched:
        self.asked.append(uri)
        assert self.gate.wait(10)
        if self.failures:
            self.failures -= 1
            raise FetchFailed("no")
        return Fetched(bytes(self.size), expected_version, uri)

    def fetch_if_changed(self, uri: str, *, earlier_version: str, max_bytes: int) -> Fetched | None:
        return None

    def fetch_range(self, uri: str, span: Span, *, expected_version: str | None = None) -> Fetched:
        raise FetchFailed("no")

    def size_of(self, uri: str, *, expected_version: str | None = None) -> int:
        raise FetchFailed("no")


def test_recent_same_file_again_is_not_fetched_again() -> None:
    inner = CountingFetcher()
    recent = RecentFetcher(inner, keep_bytes=100)
    results = [recent.fetch("a.pdf", expected_version="1", max_bytes=50) for _ in range(5)]
    assert inner.asked == ["a.pdf"]
    assert all(result is results[0] for result in results)


def test_recent_another_version_is_another_file() -> None:
    inner = CountingFetcher()
    recent = RecentFetcher(inner, keep_bytes=100)
    assert [recent.fetch("a.pdf", expected_version=version, max_bytes=50).version for version in "12"] == ["1", "2"]


def test_recent_oldest_goes_first_and_the_last_one_always_stays() -> None:
    inner = CountingFetcher(size=60)
    recent = RecentFetcher(inner, keep_bytes=130)
    for name in ("a", "b", "a", "c", "a", "b"):
        recent.fetch(name, max_bytes=100)
    assert inner.asked == ["a", "b", "c", "b"]
    inner.size = 1000
    for _ in range(2):
        recent.fetch("huge", max_bytes=2000)
    assert inner.asked[-1] == "huge"
    assert inner.asked.count("huge") == 1


def test_recent_failure_is_not_kept() -> None:
    inner = CountingFetcher(failures=1)
    recent = RecentFetcher(inner, keep_bytes=100)
    with pytest.raises(FetchFailed):
        recent.fetch("a", max_bytes=50)
    assert recent.fetch("a", max_bytes=50).data == bytes(10)


@pytest.mark.parametrize("failures", [0, 1])
def test_recent_threads_wait_for_the_one_that_fetches(failures: int) -> None:
    inner = CountingFetcher(failures=failures)
    inner.gate.clear()
    recent = RecentFetcher(inner, keep_bytes=100)
    outcomes: list[object] = []

    def work() -> None:
        try:
            outcomes.append(recent.fetch("a", max_bytes=50).data)
        except FetchFailed as error:
            outcomes.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    inner.gate.set()
    for thread in threads:
        thread.join(10)
    assert outcomes.count(bytes(10)) == 6 - failures
    assert len(inner.asked) == 1 + failures


def test_recent_if_changed_goes_straight_through() -> None:
    recent = RecentFetcher(CountingFetcher(), keep_bytes=1)
    assert recent.fetch_if_changed("a", earlier_version="1", max_bytes=1) is None


@pytest.mark.parametrize(
    ("uri", "want"),
    [
        ("https://ann:pw@h:8443/a/b.png?X-Amz-Signature=abc#f", "https://h:8443/a/b.png"),
        ("HTTP://h/p?k=s", "http://h/p"),
        ("https://h?k=s", "https://h"),
        ("http://[::1/p?k=s", "http://…"),
        ("s3://b/Vol #1?.png", "s3://b/Vol #1?.png"),
        ("/scans/a?b#c.png", "/scans/a?b#c.png"),
    ],
)
def test_shown_uri_keeps_no_secret_and_changes_no_name(uri: str, want: str) -> None:
    assert shown_uri(uri) == want
