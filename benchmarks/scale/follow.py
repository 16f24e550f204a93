"""Follows a collection of an API server in a thread: a list, then a watch, from where the last one ended.

Layer: `benchmarks.scale`. A listing again and again would measure itself.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlencode

from testcluster.api import ApiError, Json, KubeApi

WATCH_S = 300.0
PAUSE_S = 0.2
PAGE = 500

Hear = Callable[[str, Json], None]


class Follower(threading.Thread):
    """Calls `hear(type, object)` for all objects and all changes, in this thread, until stopped."""

    def __init__(self, api: KubeApi, path: str, hear: Hear) -> None:
        super().__init__(daemon=True)
        self._api = api
        self._path = path
        self._hear = hear
        self._version = ""
        self._over = threading.Event()
        self.listed = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            try:
                if not self._version:
                    self._list()
                self._watch()
            except ApiError:  # 410: too much was missed
                self._version = ""
                self._over.wait(PAUSE_S)
            except (OSError, http.client.HTTPException):
                self._over.wait(PAUSE_S)

    def stop(self) -> None:
        """Hear nothing more; the thread ends at the next change."""
        self._over.set()

    def _list(self) -> None:
        for page in pages(self._api, self._path):
            for found in page["items"]:
                self._hear("ADDED", found)
            self._version = page["metadata"]["resourceVersion"]
        self.listed.set()

    def _watch(self) -> None:
        query = {"resourceVersion": self._version, "allowWatchBookmarks": True}
        with self._api.watching(self._path, timeout_s=WATCH_S, **query) as events:
            for event in events:
                if self._over.is_set():
                    return
                if event["type"] == "ERROR":
                    self._version = ""
                    return
                self._version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._hear(event["type"], event["object"])


def pages(api: KubeApi, path: str) -> Iterator[Json]:
    """A collection, page by page."""
    following = f"limit={PAGE}"
    while True:
        page = api.call("GET", f"{path}?{following}")
        yield page
        token = page["metadata"].get("continue", "")
        if not token:
            return
        following = urlencode({"limit": PAGE, "continue": token})
