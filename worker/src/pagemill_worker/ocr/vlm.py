"""The vlm engine: pages read by a vision-language model behind any OpenAI-compatible endpoint.

Layer: `worker.ocr`, the adapter; everything it decides lives in the vlm_* modules beside it. `vlm` takes any model,
`qwen`, `gemma` and `deepseek` are the same engine with a model and an endpoint already named.

How it differs from the contract in engine.py: pages are not deterministic, one loaded engine may be used by many
threads at once (`max_in_flight` says how many pay off), and a page may rightly take longer than the usual item limit
(`page_limit_s`), because waiting for a busy endpoint is part of it.
"""

from __future__ import annotations

import hashlib
import random
import re
from typing import Any, Final

from pydantic import SecretStr

from pagemill_core.clock import Clock, SystemClock
from pagemill_core.errors import AccessDeniedError
from pagemill_worker.images.page import PageImage
from pagemill_worker.ocr.engine import EngineSettings, EngineStatus, PageText, Region, Usage
from pagemill_worker.ocr.guard import GuardedEngine
from pagemill_worker.ocr.settings import OcrSettings
from pagemill_worker.ocr.vlm_boxes import page_bbox
from pagemill_worker.ocr.vlm_client import PageAnswer, VlmClient
from pagemill_worker.ocr.vlm_image import SentImage, encode_page
from pagemill_worker.ocr.vlm_limiter import ConcurrencyLimiter
from pagemill_worker.ocr.vlm_options import VlmRecipe, recipe_of
from pagemill_worker.ocr.vlm_presets import OPENROUTER_URL, PRESETS
from pagemill_worker.ocr.vlm_prompt import prompt_for
from pagemill_worker.ocr.vlm_reply import DEFAULT_CONFIDENCE, SaidRegion
from pagemill_worker.ocr.vlm_transport import ChatTransport, TransportLimits, checked_endpoint

# Raise it when the prompt, the encoding or the parsing changes results.
RECIPE_VERSION: Final = 1

_SENDABLE_KEY: Final = re.compile(r"[\x21-\x7e]+")


class _PageReader:
    """Pages to the client's pictures, the client's answers to text of the page."""

    def __init__(self, recipe: VlmRecipe, client: VlmClient) -> None:
        self._recipe = recipe
        self._client = client

    def recognise(self, page: PageImage) -> PageText:
        options = self._recipe.options
        image = encode_page(
            page,
            longest_side_px=options.longest_side_px,
            grid_px=self._recipe.grid_px,
            image_format=options.image_format,
            jpeg_quality=options.jpeg_quality,
        )
        return self._page_text(self._client.read(image), image)

    def close(self) -> None:
        self._client.close()

    def _page_text(self, answer: PageAnswer, image: SentImage) -> PageText:
        reading = answer.reading
        regions = tuple(self._region(order, said, image) for order, said in enumerate(reading.regions))
        is_prose = reading.form == "prose"
        metadata: dict[str, Any] = {
            "model": self._recipe.model,
            "served_model": answer.served_model,
            "reply_form": reading.form,
            "attempts": answer.attempts,
            "dropped_region_count": reading.dropped_count,
        }
        if is_prose:
            regions = tuple(_as_fallback(region) for region in regions)
            metadata |= {"parsing_failed": True, "is_fallback": True}
        return PageText(
            regions=regions,
            confidence_is_default=bool(regions)
            and all(region.metadata.get("confidence_is_default", False) for region in regions),
            usage=answer.usage,
            metadata=metadata,
        )

    def _region(self, order: int, said: SaidRegion, image: SentImage) -> Region:
        metadata: dict[str, Any] = {"order": order}
        if said.location:
            metadata["location"] = said.location
        if said.confidence is None:
            metadata["confidence_is_default"] = True
        return Region(
            text=said.text,
            confidence=DEFAULT_CONFIDENCE if said.confidence is None else said.confidence,
            bbox=page_bbox(said.corners, boxes=self._recipe.boxes, image=image) if said.corners else None,
            level="block",
            metadata=metadata,
        )


class VlmEngine(GuardedEngine):
    """A loaded engine; safe to share between threads."""

    def __init__(self, recipe: VlmRecipe, client: VlmClient) -> None:
        super().__init__(recipe.name, _PageReader(recipe, client))
        self._client = client

    @property
    def spent(self) -> Usage:
        """Everything this engine's calls used so far, failed pages included: what a budget is held against."""
        return self._client.meter.total

    @property
    def concurrency(self) -> int:
        """Calls that may be in flight now; falls when the endpoint complains."""
        return self._client.limiter.limit


class VlmAdapter:
    """The door to one of the engine names."""

    recipe_version: int = RECIPE_VERSION

    def __init__(self, name: str, *, clock: Clock | None = None, dice: random.Random | None = None) -> None:
        self.name = name
        self._clock = clock if clock is not None else SystemClock()
        # Jitter only: nothing secret hangs on it.
        self._dice = dice if dice is not None else random.Random()

    def check(self, settings: EngineSettings) -> None:
        """Refuse bad options, and a missing key where the endpoint is known to need one. Calls nobody."""
        recipe = recipe_of(settings)
        checked_endpoint(recipe.base_url)
        _key_of(settings, recipe)

    def fingerprint(self, settings: EngineSettings) -> dict[str, Any]:
        recipe = recipe_of(settings)
        options = recipe.options
        prompt = prompt_for(dialect=recipe.dialect, boxes=recipe.boxes, languages=recipe.languages)
        return {
            "engine": self.name,
            "recipeVersion": self.recipe_version,
            "model": recipe.model,
            "baseUrl": recipe.base_url,
            "boxes": recipe.boxes.value,
            "dialect": recipe.dialect.value,
            "gridPx": recipe.grid_px,
            "languages": list(recipe.languages),
            "promptSha256": hashlib.sha256(prompt.encode()).hexdigest(),
            "longestSidePx": options.longest_side_px,
            "imageFormat": options.image_format,
            "jpegQuality": options.jpeg_quality if options.image_format == "jpeg" else None,
            "maxTokens": options.max_tokens,
            "maxTokensLimit": options.max_tokens_limit,
            "temperatures": list(options.temperatures),
            "extraBody": options.extra_body,
        }

    def load(self, settings: EngineSettings) -> VlmEngine:
        recipe = recipe_of(settings)
        options = recipe.options
        transport = ChatTransport(
            recipe.base_url,
            api_key=_key_of(settings, recipe),
            limits=TransportLimits(
                timeout_s=options.request_timeout_seconds,
                max_bytes=options.max_response_bytes,
                use_proxies=not recipe.is_loopback,
            ),
            clock=self._clock,
        )
        limiter = ConcurrencyLimiter(ceiling=options.max_in_flight, clock=self._clock)
        client = VlmClient(recipe, transport, limiter, clock=self._clock, dice=self._dice)
        return VlmEngine(recipe, client)

    def status(self) -> EngineStatus:
        preset = PRESETS[self.name]
        return EngineStatus(
            name=self.name,
            ready=True,
            version=f"recipe {self.recipe_version}",
            languages=("any the model reads",),
            models=(preset.model,) if preset.model else (),
            devices=("remote",),
        )

    def max_in_flight(self, settings: EngineSettings) -> int:
        """Threads of one process that may use one loaded engine at once with profit."""
        return recipe_of(settings).options.max_in_flight

    def page_limit_s(self, settings: EngineSettings) -> float:
        """Seconds within which every page ends by itself, well or badly; an item limit below it cuts patience short.

        Longest case: the page waits at every attempt for the calls of all other threads.
        """
        options = recipe_of(settings).options
        # Per attempt: the call, a hold by another page and a wait after a fault (both at most 120 s and a little).
        per_attempt_s = options.request_timeout_seconds + 2 * 132.0
        own_s = options.patience_seconds + len(options.temperatures) * per_attempt_s
        return own_s * options.max_in_flight


def adapter_for(name: str) -> VlmAdapter:
    """The adapter for `vlm`, `qwen`, `gemma` or `deepseek`. Raises: KeyError for another name."""
    return VlmAdapter(PRESETS[name].name)


def make_adapter(name: str, _paths: OcrSettings) -> VlmAdapter:
    """The adapter, by the name the registry knows it; a remote model has no files here."""
    return adapter_for(name)


def _as_fallback(region: Region) -> Region:
    metadata = {**region.metadata, "parsing_failed": True, "is_fallback": True}
    return Region(text=region.text, confidence=region.confidence, level=region.level, metadata=metadata)


def _key_of(settings: EngineSettings, recipe: VlmRecipe) -> SecretStr | None:
    """The key as it can be sent. Raises: AccessDeniedError, which never quotes it."""
    # Secrets are mounted as files, and files end in a newline.
    key = (settings.api_key or "").strip()
    if key and not _SENDABLE_KEY.fullmatch(key):
        raise AccessDeniedError(
            "the API key holds characters that cannot be sent in a header",
            advice="look for spaces, line breaks or quotes around the key in the Secret or variable it comes from",
        )
    if not key and recipe.base_url == OPENROUTER_URL:
        raise AccessDeniedError(
            f"engine {settings.name} needs an API key for {recipe.base_url}",
            advice="name a Secret in engine.apiKeySecretRef, or hand the key over with --api-key or OPENROUTER_API_KEY",
        )
    return SecretStr(key) if key else None
