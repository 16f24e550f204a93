"""The embedded S3 server in a folder of its own that goes away with it, with what tests ask for beside it.

Layer: `core.testing`; production code may not import it. The server itself is `core.storage.embedded_s3`.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from pagemill_core.clock import Clock
from pagemill_core.storage.embedded_s3 import EmbeddedS3, Identity
from pagemill_core.storage.s3 import S3Store


class SeaweedServer:
    """A running server: `with SeaweedServer() as server`."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pagemill-s3-"))
        self.server = EmbeddedS3(self._folder)
        self._numbers = itertools.count(1)
        self._shared_bucket = ""

    @property
    def endpoint(self) -> str:
        return self.server.endpoint

    def fresh_bucket(self) -> str:
        """Make a bucket that nobody else uses. Returns: its name."""
        bucket = f"bucket-{next(self._numbers)}"
        self.server.create_bucket(bucket)
        return bucket

    def fresh_store(self, *, endpoint: str = "", clock: Clock | None = None) -> S3Store:
        """A store below a prefix that nobody else uses, in a bucket that tests share.

        A bucket of its own would cost each test 0.2 s, in which the server makes room for it.
        """
        if not self._shared_bucket:
            self._shared_bucket = self.fresh_bucket()
        return self.store(self._shared_bucket, f"out-{next(self._numbers)}", endpoint=endpoint, clock=clock)

    def store(
        self,
        bucket: str,
        prefix: str = "",
        *,
        identity: Identity = "worker",
        endpoint: str = "",
        clock: Clock | None = None,
    ) -> S3Store:
        """A store of its own connections; `endpoint` may name a proxy in front of the server."""
        settings = self.server.settings(identity)
        if endpoint:
            settings = settings.model_copy(update={"endpoint": endpoint})
        return S3Store(bucket, prefix, settings, clock=clock)

    def kill_and_restart(self) -> None:
        """What a power cut and a reboot do. The endpoint stays."""
        self.server.kill()
        self.server.start()

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.server.kill()  # nothing of it is kept, so there is nothing to close in order
        shutil.rmtree(self._folder, ignore_errors=True)
