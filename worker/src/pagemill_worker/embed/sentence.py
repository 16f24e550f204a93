"""A sentence-transformers folder, read as that library would use it.

Layer: `worker.embed`; reads JSON only. A module that cannot be done exactly is refused by its name, because leaving
it out would give other vectors without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pagemill_core.errors import InvalidSpecError
from pagemill_worker.embed.encoder import Pooling
from pagemill_worker.embed.files import read_json, read_json_value

_POOLING: Mapping[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "lastToken"}
_OLD_POOLING: Mapping[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lastToken",
}
_LENGTH_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)


@dataclass(frozen=True, slots=True)
class SentenceFolder:
    """What the folder says. `max_tokens` None: as the transformer allows. `dense` are folders of layers, in order."""

    transformer: Path
    pooling: Pooling
    max_tokens: int | None = None
    lowercase: bool = False
    dense: tuple[Path, ...] = ()
    default_prompt: str = ""
    prompts: Mapping[str, str] = field(default_factory=dict)


def read_sentence_folder(folder: Path) -> SentenceFolder:
    """Read modules.json and what it names. Raises: InvalidSpecError for modules that are not offered."""
    modules = read_json_value(folder / "modules.json")
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise InvalidSpecError(f"{folder / 'modules.json'} lists no modules", advice="fetch the model again")
    parts = [(str(module.get("type", "")).rpartition(".")[2], str(module.get("path", ""))) for module in modules]
    if [kind for kind, _ in parts[:2]] != ["Transformer", "Pooling"]:
        raise InvalidSpecError(f"{folder} is not made of a Transformer and its Pooling, so it is not offered")
    dense: list[Path] = []
    for kind, path in parts[2:]:
        if kind == "Dense":
            dense.append(folder / path)
        elif kind != "Normalize":
            raise InvalidSpecError(
                f"{folder} has a module {kind}, which is not offered", advice="load it by a plug-in of your own"
            )
    transformer = folder / parts[0][1]
    lengths = next((transformer / name for name in _LENGTH_FILES if (transformer / name).is_file()), None)
    length = read_json(lengths) if lengths else {}
    default_prompt, prompts = _prompts(folder)
    return SentenceFolder(
        transformer,
        _pooling(read_json(folder / parts[1][1] / "config.json"), folder),
        max_tokens=int(length["max_seq_length"]) if length.get("max_seq_length") else None,
        lowercase=bool(length.get("do_lower_case", False)),
        dense=tuple(dense),
        default_prompt=default_prompt,
        prompts=prompts,
    )


def _pooling(config: Mapping[str, Any], folder: Path) -> Pooling:
    asked = config.get("pooling_mode")
    names = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    found = _POOLING.get(asked) if isinstance(asked, str) else _OLD_POOLING.get(names[0]) if len(names) == 1 else None
    if found is None:
        raise InvalidSpecError(
            f"{folder} pools by {asked or names or 'nothing'}, which is not offered",
            advice=f"offered are {', '.join(_POOLING)}",
        )
    if config.get("include_prompt") is False:
        raise InvalidSpecError(f"{folder} leaves its prompt out of the pooling, which is not offered")
    return found


def _prompts(folder: Path) -> tuple[str, dict[str, str]]:
    path = folder / "config_sentence_transformers.json"
    config = read_json(path) if path.is_file() else {}
    prompts = config.get("prompts")
    named = {str(name): str(text) for name, text in prompts.items()} if isinstance(prompts, dict) else {}
    default = config.get("default_prompt_name")
    return (named.get(str(default), "") if default else ""), named
