"""What a job may ask of the vlm engines, and what it is told when it asks wrongly."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pagemill_core.errors import AccessDeniedError, EngineUnavailableError, InvalidSpecError, PagemillError
from pagemill_worker.ocr import registry
from pagemill_worker.ocr.engine import Device, EngineAdapter, EngineSettings
from pagemill_worker.ocr.vlm import VlmAdapter, adapter_for
from pagemill_worker.ocr.vlm_options import recipe_of

KEY = "sk-or-planted-51e0"
URL = "http://127.0.0.1:9/v1"


def make_settings(
    name: str = "vlm",
    *,
    api_key: str | None = KEY,
    device: Device = "auto",
    languages: tuple[str, ...] = ("en",),
    **options: Any,
) -> EngineSettings:
    fields = {"model": "acme/x", **options} if name == "vlm" and "model" not in options else options
    return EngineSettings(name=name, api_key=api_key, device=device, languages=languages, options=fields)


@pytest.mark.parametrize("name", ["vlm", "qwen", "gemma", "deepseek"])
def test_every_preset_is_ready_through_the_registry(name: str) -> None:
    adapter: EngineAdapter = registry.adapter(name)
    settings = make_settings(name)

    adapter.check(settings)

    assert adapter.name == name
    assert adapter.status().ready
    assert adapter.fingerprint(settings)["baseUrl"] == "https://openrouter.ai/api/v1"
    assert name == "vlm" or name in str(adapter.fingerprint(settings)["model"])


@pytest.mark.parametrize(
    ("options", "want_path"),
    [
        ({"temprature": [0]}, "engine.options.temprature"),
        ({"temperatures": []}, "engine.options.temperatures"),
        ({"temperatures": [3]}, "engine.options.temperatures.0"),
        ({"maxTokens": 0}, "engine.options.maxTokens"),
        ({"maxTokens": 5000, "maxTokensLimit": 4000}, "maxTokensLimit is below maxTokens"),
        ({"boxes": "inches"}, "engine.options.boxes"),
        ({"imageFormat": "gif"}, "engine.options.imageFormat"),
        ({"maxInFlight": 0}, "engine.options.maxInFlight"),
        ({"model": None}, "engine.model"),
        ({"extraBody": {"messages": []}}, "must not set messages"),
        ({"pricePerMillionTokens": {"prompt": "-1", "completion": "0"}}, "pricePerMillionTokens.prompt"),
        ({"baseUrl": "ftp://host/v1"}, "engine.endpoint"),
        ({"baseUrl": "host/v1"}, "engine.endpoint"),
        ({"baseUrl": "https://user:secret@host/v1"}, "credentials"),
        ({"baseUrl": "https://host/v1?key=abc"}, "credentials"),
        ({"baseUrl": "https://host:http/v1"}, "engine.endpoint"),
        ({"baseUrl": "https://ho st/v1"}, "engine.endpoint"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
def test_wrong_option_is_refused_by_its_path(options: dict[str, Any], want_path: str) -> None:
    with pytest.raises(InvalidSpecError, match=want_path):
        adapter_for("vlm").check(make_settings(**options))


def test_key_misplaced_in_the_options_does_not_come_back() -> None:
    for options in ({"apiKey": KEY}, {"model": [KEY]}, {"baseUrl": f"https://x:{KEY}@host/v1"}):
        with pytest.raises(InvalidSpecError) as caught:
            recipe_of(make_settings(**options))
        assert KEY not in str(caught.value)
        assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_remote_model_on_a_local_gpu_is_refused() -> None:
    with pytest.raises(InvalidSpecError, match=r"engine\.device"):
        adapter_for("vlm").check(make_settings(device="gpu"))


def test_languages_of_every_spelling_become_tags() -> None:
    recipe = recipe_of(make_settings(languages=("eng", "en,ja", "zh-Hans")))

    assert recipe.languages == ("en", "ja", "zh-Hans")


def test_unknown_language_is_refused() -> None:
    with pytest.raises(EngineUnavailableError, match="klingon"):
        adapter_for("vlm").check(make_settings(languages=("klingon",)))


def test_openrouter_without_a_key_is_refused_with_advice() -> None:
    for api_key in (None, "", "  \n"):
        with pytest.raises(AccessDeniedError) as caught:
            adapter_for("qwen").check(make_settings("qwen", api_key=api_key))
        assert "OPENROUTER_API_KEY" in caught.value.advice


def test_own_endpoint_needs_no_key() -> None:
    adapter_for("vlm").check(make_settings(api_key=None, baseUrl=URL))


@pytest.mark.parametrize(
    "key", ["sk two", "sk\nplanted", "sk-é", "sk\u2028key"], ids=["space", "line", "accent", "u2028"]
)
def test_key_that_no_header_can_carry_is_refused_unquoted(key: str) -> None:
    with pytest.raises(PagemillError) as caught:
        adapter_for("vlm").check(make_settings(api_key=key))

    assert isinstance(caught.value, AccessDeniedError)
    assert key not in caught.value.message


def test_fingerprint_holds_what_decides_the_text_and_nothing_else() -> None:
    adapter = adapter_for("vlm")
    base = adapter.fingerprint(make_settings())
    same: list[dict[str, Any]] = [{"maxInFlight": 9}, {"patienceSeconds": 5}, {"requestTimeoutSeconds": 5}]
    other: list[dict[str, Any]] = [{"model": "acme/y"}, {"longestSidePx": 99}, {"boxes": "pixels"}, {"baseUrl": URL}]
    for options in same:
        assert adapter.fingerprint(make_settings(**options)) == base
    for options in other:
        assert adapter.fingerprint(make_settings(**options)) != base
    assert adapter.fingerprint(make_settings(languages=("ja",))) != base
    assert adapter.fingerprint(make_settings(api_key="another")) == base

    assert KEY not in json.dumps(base)


def test_key_is_in_no_repr() -> None:
    settings = make_settings(baseUrl=URL)
    engine = VlmAdapter("vlm").load(settings)
    try:
        assert KEY not in repr((settings, engine, vars(engine), recipe_of(settings)))
    finally:
        engine.close()


def test_limits_for_the_pipeline_follow_the_options() -> None:
    adapter = adapter_for("vlm")
    settings = make_settings(maxInFlight=8, patienceSeconds=100, requestTimeoutSeconds=10, temperatures=[0])

    assert adapter.max_in_flight(settings) == 8
    assert adapter.page_limit_s(settings) == 8 * (100 + 10 + 264)
