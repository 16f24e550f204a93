"""One list of languages for all engines: BCP-47 outside, each engine's own code inside.

Layer: `worker.ocr`; pure. A job names languages once (`en`, `ja`, `zh-Hans`); codes of ISO 639-2 (`eng`, `fra`) and
of the engines themselves (`chi_sim`, `japan`, `ch_sim`) are accepted too, alone or as one string (`en,ja`,
`eng+fra`). What an engine cannot read is refused before work starts, never guessed at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pagemill_core.errors import EngineUnavailableError


@dataclass(frozen=True, slots=True)
class Language:
    """One language and what each engine calls it; None where no engine model of that kind reads it."""

    tag: str
    tesseract: str | None = None
    paddle: str | None = None
    easyocr: str | None = None
    aliases: tuple[str, ...] = ()


# tag | tesseract | PP-OCRv6 | easyocr | further names. "-" stands for none.
# Sources: Tesseract's tessdata file names, the language set of PP-OCRv6 small, EasyOCR's language list.
_TABLE = """
af afr af af -
ar ara - ar -
az aze az az -
be bel - be -
bg bul - bg -
bn ben - bn -
bs bos bs bs -
ca cat ca - -
cs ces cs cs cze
cy cym cy cy wel
da dan da da -
de deu de de ger,german
el ell - - gre
en eng en en english
es spa es es -
et est et et -
eu eus eu - baq
fa fas - fa per
fi fin fi - -
fr fra fr fr fre,french
ga gle ga ga -
gl glg gl - -
he heb - - iw
hi hin - hi -
hr hrv hr hr -
hu hun hu hu -
id ind id id in
is isl is is ice
it ita it it -
ja jpn japan ja jp,japanese
kn kan - kn -
ko kor - ko korean
ku kmr ku ku -
la lat la la -
lb ltz lb - -
lt lit lt lt -
lv lav lv lv -
mi mri mi mi mao
mn mon - mn -
mr mar - mr -
ms msa ms ms may
mt mlt mt mt -
ne nep - ne -
nl nld nl nl dut
no nor no no nb,nn,nob,nno
oc oci oc oc -
pl pol pl pl -
pt por pt pt -
qu que qu - -
rm - rm - roh
ro ron ro ro rum
ru rus - ru -
sk slk sk sk slo
sl slv sl sl -
sq sqi sq sq alb
sr srp - rs_cyrillic -
sr-Latn srp_latn rs_latin rs_latin -
sv swe sv sv -
sw swa sw sw -
ta tam - ta -
te tel - te -
th tha - th -
tl fil tl tl tgl
tr tur tr tr -
ug uig - ug -
uk ukr - uk -
ur urd - ur -
uz uzb uz uz -
vi vie vi vi -
zh-Hans chi_sim ch ch_sim zh,zh-cn,zh-sg,zho,chi,cn,chinese
zh-Hant chi_tra chinese_cht ch_tra zh-tw,zh-hk,zh-mo
"""


def _parse(line: str) -> Language:
    tag, tesseract, paddle, easyocr, aliases = (None if cell == "-" else cell for cell in line.split())
    return Language(str(tag), tesseract, paddle, easyocr, tuple(aliases.split(",")) if aliases else ())


LANGUAGES: Mapping[str, Language] = MappingProxyType(
    {language.tag: language for language in map(_parse, _TABLE.strip().splitlines())}
)


def _names() -> dict[str, str]:
    names: dict[str, str] = {}
    for language in LANGUAGES.values():
        for name in (language.tesseract, language.paddle, language.easyocr, *language.aliases):
            if name:
                names.setdefault(_fold(name), language.tag)
    names.update({_fold(tag): tag for tag in LANGUAGES})  # a tag is itself before it is another's alias
    return names


def _fold(code: str) -> str:
    return code.strip().lower().replace("_", "-")


_TAG_OF: Mapping[str, str] = MappingProxyType(_names())


def split_codes(languages: Iterable[str]) -> tuple[str, ...]:
    """The single codes of `languages`, each of which may hold several joined by `,` or `+`; order kept, blanks gone."""
    codes = (code.strip() for entry in languages for code in entry.replace("+", ",").split(","))
    return tuple(dict.fromkeys(code for code in codes if code))


def canonical_tag(code: str) -> str | None:
    """The tag of our list that `code` means, None when it means none.

    Regions and scripts that change nothing for us are dropped from the right: `en-US` is `en`, `sr-Latn-RS` is
    `sr-Latn`, `zh-Hant-TW` is `zh-Hant`.
    """
    parts = _fold(code).split("-")
    while parts:
        tag = _TAG_OF.get("-".join(parts))
        if tag is not None:
            return tag
        parts.pop()
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageOffer:
    """What one engine reads here.

    `codes` maps our tags to the engine's codes, for all it could ever read; `present` are the engine's codes whose
    data is on this machine (they may hold codes outside our list, a user's own training); `advice` says how to get
    the data of one code.
    """

    engine: str
    codes: Mapping[str, str]
    present: Collection[str]
    advice: Callable[[str], str]

    def available(self) -> tuple[str, ...]:
        """The tags (and the engine's codes that have no tag) that can be read now, sorted."""
        tagged = {code: tag for tag, code in self.codes.items()}
        return tuple(sorted({tagged.get(code, code) for code in self.present}))


def resolve_languages(languages: Iterable[str], offer: LanguageOffer) -> tuple[str, ...]:
    """The engine's own codes for what the job asks, in the job's order, each once.

    Raises: EngineUnavailableError for a code that is no language, that the engine has no model for, or whose data is
    not installed; the message lists what is available.
    """
    codes = split_codes(languages)
    if not codes:
        raise EngineUnavailableError(
            f"engine.languages is empty; {_listing(offer)}", advice="name at least one language"
        )
    return tuple(dict.fromkeys(_resolve(code, offer) for code in codes))


def _resolve(code: str, offer: LanguageOffer) -> str:
    if code in offer.present:
        return code
    tag = canonical_tag(code)
    if tag is None:
        raise EngineUnavailableError(
            f"engine.languages: {code!r} is no language code known here; {_listing(offer)}",
            advice="use BCP-47 codes such as en, fr, ja, zh-Hans",
        )
    engine_code = offer.codes.get(tag)
    if engine_code is None:
        raise EngineUnavailableError(
            f"engine.languages: {offer.engine} cannot read {tag!r}; {_listing(offer)}",
            advice="choose one of these, or another engine",
        )
    if engine_code not in offer.present:
        raise EngineUnavailableError(
            f"engine.languages: {offer.engine} has no data for {tag!r} ({engine_code}) on this machine; "
            f"{_listing(offer)}",
            advice=offer.advice(engine_code),
        )
    return engine_code


def _listing(offer: LanguageOffer) -> str:
    return f"{offer.engine} reads here: {', '.join(offer.available()) or 'nothing'}"
