"""Random sequences of operations: every backend answers as the model, `MemoryStore`, does."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from pagemill_core.errors import ObjectNotFoundError
from pagemill_core.storage.folder import FolderStore
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.storage.store import ObjectStore
from pagemill_core.testing.seaweed import SeaweedServer

KEYS = ["a", "b/c", "b/d e", "b/ê", "b/日/本", "zz+%#", ".pagemill/x"]
PREFIXES = ["", "a", "b", "b/", "b/d", "b/日", "zz", ".page", "nothing"]
METAS = [None, {"seq": "1"}, {"seq": "2", "crc32": "00"}]

keys = st.sampled_from(KEYS)
metas = st.sampled_from(METAS)


class StoreMachine(RuleBasedStateMachine):
    """`real` and `model` get the same operations. Contents never repeat, since tokens may be digests of them."""

    tokens: Bundle[tuple[str, str, str]] = Bundle("tokens")

    def __init__(self, real: ObjectStore) -> None:
        super().__init__()
        self.real = real
        self.model = MemoryStore()
        self.numbers = itertools.count()

    def content(self) -> bytes:
        number = next(self.numbers)
        return b"%d" % number * (number % 7) if number else b""

    @rule(target=tokens, key=keys, meta=metas)
    def put(self, key: str, meta: dict[str, str] | None) -> tuple[str, str, str]:
        content = self.content()
        return key, self.real.put(key, content, meta=meta), self.model.put(key, content, meta=meta)

    @rule(key=keys, meta=metas)
    def put_if_absent(self, key: str, meta: dict[str, str] | None) -> None:
        content = self.content()
        created = self.real.put_if_absent(key, content, meta=meta)
        assert (created is None) == (self.model.put_if_absent(key, content, meta=meta) is None)

    @rule(known=tokens, meta=metas)
    def put_if_match(self, known: tuple[str, str, str], meta: dict[str, str] | None) -> None:
        key, real_token, model_token = known
        content = self.content()
        swapped = self.real.put_if_match(key, content, real_token, meta=meta)
        assert (swapped is None) == (self.model.put_if_match(key, content, model_token, meta=meta) is None)

    @rule(key=keys)
    def delete(self, key: str) -> None:
        self.real.delete(key)
        self.model.delete(key)

    @rule(key=keys)
    def read(self, key: str) -> None:
        info = self.real.head(key)
        try:
            want = self.model.get(key)
        except ObjectNotFoundError:
            assert info is None
            with pytest.raises(ObjectNotFoundError):
                self.real.get(key)
            return
        blob = self.real.get(key)
        assert info is not None
        assert (blob.data, dict(blob.meta), blob.token) == (want.data, dict(want.meta), info.token)
        assert (info.key, info.size, dict(info.meta)) == (key, len(want.data), dict(want.meta))

    @rule(key=keys, start=st.integers(0, 9), length=st.integers(0, 9))
    def read_range(self, key: str, start: int, length: int) -> None:
        if self.model.head(key) is not None:
            assert self.real.get_range(key, start, length) == self.model.get_range(key, start, length)

    @rule(prefix=st.sampled_from(PREFIXES), limit=st.none() | st.integers(0, 4))
    def list_some(self, prefix: str, limit: int | None) -> None:
        found = {info.key: info.size for info in self.real.list(prefix, limit=limit)}
        want = {info.key: info.size for info in self.model.list(prefix)}
        assert found.items() <= want.items()
        assert len(found) == (len(want) if limit is None else min(limit, len(want)))

    @invariant()
    def nothing_else_is_there(self) -> None:
        assert {info.key for info in self.real.list("")} == {info.key for info in self.model.list("")}


def test_folder_answers_as_memory_does() -> None:
    roots = []

    def machine() -> StoreMachine:
        roots.append(tempfile.mkdtemp(prefix="pagemill-machine-"))
        return StoreMachine(FolderStore(Path(roots[-1]), fsync=False))

    try:
        run_state_machine_as_test(machine, settings=settings(max_examples=40, stateful_step_count=25))
    finally:
        for root in roots:
            shutil.rmtree(root)


@pytest.mark.s3
def test_s3_answers_as_memory_does(s3_server: SeaweedServer) -> None:
    stores = []

    def machine() -> StoreMachine:
        stores.append(s3_server.fresh_store())
        return StoreMachine(stores[-1])

    run_state_machine_as_test(machine, settings=settings(max_examples=15, stateful_step_count=25))
    for store in stores:
        store.close()
