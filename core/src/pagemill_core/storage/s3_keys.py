"""Credentials for S3 that Pagemill is handed: in its settings, or in the files of a mounted Secret.

Layer: `core.storage`, beside `s3`, which adds botocore's own chain.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from pagemill_core.errors import AccessDeniedError
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.storage.s3_sign import Keys

# A Secret is written for files or for the environment; both kinds of names are met.
_ACCESS_KEY = ("accessKey", "AWS_ACCESS_KEY_ID")
_SECRET_KEY = ("secretKey", "AWS_SECRET_ACCESS_KEY")
_SESSION_TOKEN = ("sessionToken", "AWS_SESSION_TOKEN")
_LOOK_AGAIN_S = 2.0  # a rotated Secret takes the kubelet a minute anyway


class StaticKeys:
    """Credentials that never change."""

    def __init__(self, settings: S3Settings) -> None:
        self._keys = Keys(
            settings.access_key, settings.secret_key.get_secret_value(), settings.session_token.get_secret_value()
        )

    def keys(self) -> Keys:
        return self._keys

    def refresh(self) -> None:
        """There is nothing to read anew."""


class FileKeys:
    """Credentials in a folder, read again when a file in it changes."""

    def __init__(self, folder: Path, monotonic_s: Callable[[], float]) -> None:
        self._folder = folder
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._keys: Keys | None = None
        self._seen: tuple[int, ...] = ()
        self._looked_s = 0.0

    def keys(self) -> Keys:
        """Raises: AccessDeniedError when the folder or one of its files is missing."""
        with self._lock:
            now_s = self._monotonic_s()
            if self._keys is None or now_s - self._looked_s >= _LOOK_AGAIN_S:
                stamps = self._stamps()
                if self._keys is None or stamps != self._seen:
                    self._keys = self._read()
                self._seen, self._looked_s = stamps, now_s
            return self._keys

    def refresh(self) -> None:
        with self._lock:
            self._keys = None

    def _stamps(self) -> tuple[int, ...]:
        """Changes when a file does, or the link that the kubelet swaps to replace them all at once."""
        paths = [self._folder / name for name in (*_ACCESS_KEY, *_SECRET_KEY, *_SESSION_TOKEN)]
        stamps = []
        for path in paths:
            try:
                status = path.stat()
            except OSError:
                stamps.append(0)
            else:
                stamps.append(hash((status.st_mtime_ns, status.st_ino, status.st_size)))
        return tuple(stamps)

    def _read(self) -> Keys:
        access_key, secret_key = self._text(_ACCESS_KEY), self._text(_SECRET_KEY)
        if not access_key or not secret_key:
            raise AccessDeniedError(
                f"{self._folder} holds no credentials for S3",
                advice="give the Secret the entries accessKey and secretKey",
            )
        return Keys(access_key, secret_key, self._text(_SESSION_TOKEN))

    def _text(self, names: tuple[str, ...]) -> str:
        for name in names:
            try:
                return (self._folder / name).read_text("utf-8").strip()
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError) as error:
                raise AccessDeniedError(f"{self._folder / name} cannot be read") from error
        return ""
