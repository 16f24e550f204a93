"""Language codes: one list outside, each engine's own inside."""

from __future__ import annotations

import pytest

from pagemill_core.errors import EngineUnavailableError
from pagemill_worker.ocr.languages import LANGUAGES, LanguageOffer, canonical_tag, resolve_languages, split_codes


def make_offer(present: set[str]) -> LanguageOffer:
    return LanguageOffer(
        engine="tesseract",
        codes={tag: language.tesseract for tag, language in LANGUAGES.items() if language.tesseract},
        present=present,
        advice=lambda code: f"install {code}",
    )


@pytest.mark.parametrize(
    ("code", "want_tag"),
    [
        ("en", "en"),
        ("eng", "en"),
        ("EN-us", "en"),
        ("en_GB", "en"),
        ("fra", "fr"),
        ("fre", "fr"),
        ("french", "fr"),
        ("deu", "de"),
        ("ger", "de"),
        ("ja", "ja"),
        ("jpn", "ja"),
        ("japan", "ja"),
        ("zh", "zh-Hans"),
        ("ch", "zh-Hans"),
        ("ch_sim", "zh-Hans"),
        ("chi_sim", "zh-Hans"),
        ("zh-CN", "zh-Hans"),
        ("zh-TW", "zh-Hant"),
        ("zh-Hant-HK", "zh-Hant"),
        ("chinese_cht", "zh-Hant"),
        ("rs_latin", "sr-Latn"),
        ("sr-Latn-RS", "sr-Latn"),
        ("rs_cyrillic", "sr"),
        ("nb", "no"),
        ("xx", None),
        ("", None),
    ],
)
def test_canonical_tag_known_code_gives_the_tag(code: str, want_tag: str | None) -> None:
    assert canonical_tag(code) == want_tag


def test_language_table_every_code_of_every_engine_leads_back_to_its_tag() -> None:
    for tag, language in LANGUAGES.items():
        assert canonical_tag(tag) == tag
        for code in (language.tesseract, language.easyocr):
            assert code is None or canonical_tag(code) == tag
        assert language.paddle is None or canonical_tag(language.paddle) in (tag, "zh-Hans")


def test_split_codes_joined_and_repeated_gives_each_once_in_order() -> None:
    assert split_codes(["en,ja", " fra+eng ", "en", ""]) == ("en", "ja", "fra", "eng")


def test_resolve_languages_two_spellings_of_one_gives_it_once() -> None:
    assert resolve_languages(["en", "eng", "en-US", "fr"], make_offer({"eng", "fra"})) == ("eng", "fra")


def test_resolve_languages_own_training_is_taken_by_its_file_name() -> None:
    assert resolve_languages(["mybook", "jpn_vert"], make_offer({"mybook", "jpn_vert"})) == ("mybook", "jpn_vert")


def test_resolve_languages_data_missing_names_what_to_install_and_what_is_there() -> None:
    with pytest.raises(EngineUnavailableError, match="no data for 'de'.*reads here: en, fr") as caught:
        resolve_languages(["de"], make_offer({"eng", "fra"}))
    assert caught.value.advice == "install deu"


@pytest.mark.parametrize("languages", [["tlh"], ["en,klingon"], ["e n"]])
def test_resolve_languages_unknown_code_is_refused_with_what_is_there(languages: list[str]) -> None:
    with pytest.raises(EngineUnavailableError, match="no language code.*reads here: en$"):
        resolve_languages(languages, make_offer({"eng"}))


def test_resolve_languages_engine_without_a_model_is_refused() -> None:
    with pytest.raises(EngineUnavailableError, match="tesseract cannot read 'rm'"):
        resolve_languages(["rm"], make_offer({"eng"}))


@pytest.mark.parametrize("languages", [[], [""], [" , "]])
def test_resolve_languages_nothing_named_is_refused(languages: list[str]) -> None:
    with pytest.raises(EngineUnavailableError, match="is empty"):
        resolve_languages(languages, make_offer({"eng"}))
