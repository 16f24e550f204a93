"""Fetching models: from a store, from a folder, and from a hub that speaks on loopback."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pagemill_core.errors import (
    AccessDeniedError,
    EngineUnavailableError,
    IntegrityError,
    InvalidSpecError,
    SourceError,
    StoreUnavailableError,
)
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.storage.open import open_store
from pagemill_worker.embed.catalogue import KnownModel
from pagemill_worker.embed.digest import NOTE
from pagemill_worker.embed.encoder import ModelSettings
from pagemill_worker.embed.fetching import (
    Wanted,
    chosen,
    ensure_model,
    fetch_model,
    fetched_models,
    read_note,
    verify_model,
    wanted,
)
from pagemill_worker.embed.registry import resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"model_type": "siglip"}',
    "preprocessor_config.json": b"{}",
    "model.safetensors": b"the weights" * 1000,
    "pytorch_model.bin": b"the same weights, pickled",
    "modeling_mine.py": b"raise SystemExit",
    "README.md": b"# A card",
    "onnx/model.onnx": b"another format",
    "onnx/config.json": b"{}",
}


def memory(files: dict[str, bytes]) -> MemoryStore:
    store = MemoryStore("models")
    for name, data in files.items():
        store.put(name, data)
    return store


def test_a_model_in_a_store_is_fetched_whole_and_found_afterwards(tmp_path: Path) -> None:
    model = wanted("s3://models/siglip", tmp_path)

    fetched = fetch_model(model, lambda _uri: memory(FILES))

    assert sorted(fetched.files) == ["config.json", "model.safetensors", "modeling_mine.py", "preprocessor_config.json"]
    assert (fetched.path / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    found = resolve(ModelSettings(uri="s3://models/siglip", cache=tmp_path, digest=fetched.digest))
    assert (found.path, found.loader) == (fetched.path, "transformers")
    assert [path.name for path in fetched.path.parent.iterdir()] == [fetched.path.name]


def test_fetching_again_does_nothing(tmp_path: Path) -> None:
    model = wanted("s3://models/siglip", tmp_path)
    first = fetch_model(model, lambda _uri: memory(FILES))

    def closed(uri: str) -> MemoryStore:
        raise AssertionError(uri)

    again = fetch_model(model, closed)

    assert (again.is_new, again.digest) == (False, first.digest)


def test_a_named_model_is_taken_from_a_folder_instead_of_its_hub(tmp_path: Path) -> None:
    source = tmp_path / "mirror"
    source.mkdir()
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        (source / name).write_bytes(FILES[name])
    cache = tmp_path / "cache"

    fetched = fetch_model(wanted("dinov2-small", cache, source=str(source)), open_store)

    assert resolve(ModelSettings(name="dinov2-small", cache=cache)).digest == fetched.digest
    assert [model.name for model in fetched_models(cache)] == ["dinov2-small"]


def test_what_changed_after_the_fetch_is_seen_when_verifying(tmp_path: Path) -> None:
    fetched = fetch_model(wanted("s3://models/siglip", tmp_path), lambda _uri: memory(FILES))
    assert verify_model(fetched) == ("Intact", [])

    (fetched.path / "model.safetensors").write_bytes(b"others")
    (fetched.path / "config.json").unlink()
    (fetched.path / "extra.json").write_text("{}")

    assert verify_model(fetched) == ("Damaged", ["config.json", "extra.json", "model.safetensors"])


def test_a_broken_note_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / NOTE).write_text("{]")

    assert read_note(tmp_path) is None


def test_a_fetch_that_fails_leaves_nothing(tmp_path: Path) -> None:
    class Failing(MemoryStore):
        def get_range(self, key: str, start: int, length: int, *, if_match: str | None = None) -> bytes:
            raise StoreUnavailableError("gone")

    store = Failing("models")
    store.put("config.json", b"{}")

    with pytest.raises(StoreUnavailableError):
        fetch_model(wanted("s3://models/siglip", tmp_path), lambda _uri: store)

    assert list((tmp_path / "s3").iterdir()) == []


def test_an_empty_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no model"):
        fetch_model(wanted("s3://models/none", tmp_path), lambda _uri: memory({"README.md": b""}))


@pytest.mark.parametrize(
    ("asked", "source", "said"),
    [
        ("hf://a/b", "", "no pinned revision"),
        ("file:///a", "", "needs no fetching"),
        ("demo-conse", "", "make demo-search"),
        ("nothing", "", "no model is called"),
    ],
)
def test_what_cannot_be_fetched_is_refused(tmp_path: Path, asked: str, source: str, said: str) -> None:
    with pytest.raises(InvalidSpecError, match=said):
        wanted(asked, tmp_path, source=source)


def test_names_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no path below"):
        chosen(["../evil.json", "config.json"], Wanted("m", "s3://m", None, tmp_path))


def test_a_digest_of_the_catalogue_is_checked(tmp_path: Path) -> None:
    model = Wanted("m", "s3://m", None, tmp_path / "m", digest="sha256:" + "0" * 64)

    with pytest.raises(IntegrityError, match="the catalogue says"):
        fetch_model(model, lambda _uri: memory(FILES))
    assert not (tmp_path / "m").exists()


def test_ensuring_fetches_what_has_an_address_and_leaves_the_rest(tmp_path: Path) -> None:
    opened: list[str] = []

    def opening(uri: str) -> MemoryStore:
        opened.append(uri)
        return memory(FILES)

    for model in (
        ModelSettings(uri=str(tmp_path), cache=tmp_path),
        ModelSettings(name="all-minilm-l6-v2", cache=tmp_path),
        ModelSettings(name="demo-conse", cache=tmp_path),
        ModelSettings(uri="s3://models/a", cache=tmp_path),
        ModelSettings(uri="s3://models/a", cache=tmp_path),
    ):
        ensure_model(model, opening)

    assert opened == ["s3://models/a"]


# A hub on loopback


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of a hub: a revision's files, and each file with its headers."""

    damaged = False
    refusal = 0

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        if type(self).refusal:
            self._send(type(self).refusal, b"{}", with_body)
        elif path == f"/api/models/org/siglip/revision/{COMMIT}":
            self._send(200, json.dumps(self._info()).encode(), with_body, "application/json")
        elif path.startswith(f"/org/siglip/resolve/{COMMIT}/"):
            data = FILES[path.partition(f"{COMMIT}/")[2]]
            data = data[:-1] + b"!" if type(self).damaged and data.startswith(b"the weights") else data
            self._send(200, data, with_body, etag=hashlib.sha256(data).hexdigest())
        else:
            code = "RevisionNotFound" if path.startswith("/api/models/org/siglip") else "RepoNotFound"
            self._send(404, b"{}", with_body, error=code)

    def _info(self) -> dict[str, object]:
        siblings = [
            {"rfilename": name, "size": len(data)}
            | (
                {"lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}}
                if name == "model.safetensors"
                else {}
            )
            for name, data in FILES.items()
        ]
        return {"id": "org/siglip", "sha": COMMIT, "siblings": siblings}

    def _send(
        self, status: int, data: bytes, with_body: bool, kind: str = "", *, etag: str = "", error: str = ""
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", COMMIT)
        for header, value in (("Content-Type", kind), ("ETag", f'"{etag}"' if etag else ""), ("X-Error-Code", error)):
            if value:
                self.send_header(header, value)
        self.end_headers()
        if with_body:
            self.wfile.write(data)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    from huggingface_hub import constants

    handler = type("ThisHub", (Hub,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr("pagemill_worker.embed.hub.endpoint", lambda: f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def model(tmp_path: Path) -> Wanted:
    return wanted("hf://org/siglip", tmp_path, revision=COMMIT)


def never(uri: str) -> MemoryStore:
    raise AssertionError(uri)


def test_a_hub_model_is_fetched_at_its_revision_without_code_and_pickles(hub: type[Hub], model: Wanted) -> None:
    fetched = fetch_model(model, never)

    assert sorted(fetched.files) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert fetched.uri == f"hf://org/siglip@{COMMIT}"
    assert sorted(path.name for path in fetched.path.iterdir()) == sorted([*fetched.files, NOTE])


def test_a_file_that_is_not_what_the_hub_says_is_refused(hub: type[Hub], model: Wanted) -> None:
    hub.damaged = True

    with pytest.raises(IntegrityError, match=r"model\.safetensors is not the file"):
        fetch_model(model, never)
    assert not model.path.exists()


def test_a_revision_or_model_that_is_not_there_is_named(hub: type[Hub], tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"no revision {'f' * 40}"):
        fetch_model(wanted("hf://org/siglip", tmp_path, revision="f" * 40), never)
    with pytest.raises(SourceError, match="does not exist, or is private"):
        fetch_model(wanted("hf://org/other", tmp_path, revision=COMMIT), never)


@pytest.mark.parametrize(("status", "error"), [(403, AccessDeniedError), (500, StoreUnavailableError)])
def test_a_hub_that_refuses_is_told(hub: type[Hub], model: Wanted, status: int, error: type[Exception]) -> None:
    hub.refusal = status

    with pytest.raises(error):
        fetch_model(model, never)


def test_an_offline_hub_is_not_asked(model: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(EngineUnavailableError, match="HF_HUB_OFFLINE is set"):
        fetch_model(model, never)


def test_a_hub_that_does_not_answer_is_told(model: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("pagemill_worker.embed.hub.endpoint", lambda: "http://127.0.0.1:9")

    with pytest.raises(StoreUnavailableError, match="does not answer"):
        fetch_model(model, never)


def test_a_catalogue_entry_lists_files_that_the_fetch_then_takes(tmp_path: Path) -> None:
    known = KnownModel(
        name="m", summary="", sides=("visual",), loader="transformers", dim=1, licence="MIT", files=("config.json",)
    )
    asked = Wanted("m", "hf://a/b", COMMIT, tmp_path, patterns=known.files)

    assert chosen(list(FILES), asked) == ["config.json"]
