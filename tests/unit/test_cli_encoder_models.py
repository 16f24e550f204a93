"""`pagemill models` for the models of encoders."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagemill_cli.testing.command import Told, run_command

FILES = {
    "config.json": b'{"model_type": "dinov2"}',
    "preprocessor_config.json": b"{}",
    "model.safetensors": b"weights",
    "README.md": b"a card",
}


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def models(cache: Path, *words: object) -> Told:
    return run_command("models", *words, environment={"PAGEMILL_MODELS_DIR": str(cache)})


def test_list_shows_models_with_what_they_are_and_how_to_get_them(cache: Path) -> None:
    (mini, dino) = models(cache, "list", "all-minilm-l6-v2", "dinov2-small", "-o", "json").json["encoders"]

    assert (mini["dim"], mini["licence"], mini["reads"], mini["state"]) == (384, "Apache-2.0", ["text"], "Here")
    assert (dino["state"], dino["where"]) == ("Missing", "`pagemill models fetch dinov2-small` fetches it")
    assert "siglip-so400m-patch14-384" in models(cache, "list").out


def test_a_model_is_fetched_listed_verified_and_found_damaged(cache: Path, mirror: Path) -> None:
    (fetched,) = models(cache, "fetch", "dinov2-small", "--from", mirror, "-o", "json").json["fetched"]
    assert fetched["isNew"] and Path(fetched["path"]) == cache / "dinov2-small"
    assert not models(cache, "fetch", "dinov2-small", "--from", mirror, "-o", "json").json["fetched"][0]["isNew"]
    assert "there already" in models(cache, "fetch", "dinov2-small", "--from", mirror).out

    (listed,) = models(cache, "list", "dinov2-small", "-o", "json").json["encoders"]
    assert (listed["state"], listed["digest"]) == ("Here", fetched["digest"])
    (verified,) = models(cache, "verify", "dinov2-small", "-o", "json").json["encoders"]
    assert (verified["state"], verified["digest"]) == ("Intact", fetched["digest"])

    (cache / "dinov2-small" / "model.safetensors").write_bytes(b"decayed")
    told = models(cache, "verify", "dinov2-small")
    assert told.status == 70 and "Damaged" in told.out and "model.safetensors" in told.out


def test_verify_prints_the_digest_of_a_folder_of_ones_own(cache: Path, mirror: Path) -> None:
    (told,) = models(cache, "verify", mirror, "-o", "json").json["encoders"]

    assert told["state"] == "Unknown" and told["digest"].startswith("sha256:")
    assert told["digest"] in models(cache, "verify", mirror).out.replace("\n", "")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("list", "nothing-like-it"), 78, "no engine with models and no model of an encoder"),
        (("fetch", "demo-conse"), 78, "make demo-search"),
        (("fetch", "hf://organisation/model"), 78, "--revision"),
        (("fetch", "tesseract", "dinov2-small"), 78, "one by one"),
        (("verify", "dinov2-small"), 69, "was not fetched"),
        (("verify", "no/such/folder"), 78, "is not on this machine"),
    ],
)
def test_what_cannot_be_done_is_refused_with_advice(
    cache: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    told = models(cache, *words)

    assert told.status == status
    assert said in told.err
