"""Generated files of the catalogue of models: the worker's copy of config/models, and the page that lists them.

Layer: project tooling; named in tools/generate.py. config/models is what people edit; an installed worker has no
repository around it, so the same texts lie inside its package.
"""

from __future__ import annotations

from pathlib import Path

from pagemill_worker.embed.catalogue import KnownModel, known_models

SOURCE = Path(__file__).resolve().parent.parent / "config" / "models"
COPY = "worker/src/pagemill_worker/embed/registered"
PAGE = "docs/reference/models.md"

_HEAD = """# Named models

What `model.name` of an EmbeddingJob may say. [The guide](../guide/models.md) tells how they are fetched and used.
Revisions are commits of the model's hub; `pagemill models fetch` takes exactly these.

| name | reads | numbers a row | what it is | loader | licence |
|---|---|---|---|---|---|
"""


def render_all() -> dict[str, str]:
    """Every generated file, by path."""
    copies = {f"{COPY}/{path.name}": path.read_text("utf-8") for path in sorted(SOURCE.glob("*.yaml"))}
    return {**copies, PAGE: _page()}


def _page() -> str:
    models = known_models(SOURCE).values()
    rows = "".join(_row(model) for model in models)
    return _HEAD + rows + "\n" + "\n".join(_section(model) for model in models)


def _row(model: KnownModel) -> str:
    reads = " and ".join("pictures" if side == "visual" else "texts" for side in model.sides)
    return (
        f"| [`{model.name}`](#{model.name.replace('.', '')}) | {reads} | {model.dim:,} | {model.summary} | "
        f"`{model.loader}` | {model.licence} |\n"
    )


def _section(model: KnownModel) -> str:
    facts = [f"- Row: {', '.join(f'{pooling} ({side})' for side, pooling in model.pooling.items())}"]
    if model.hub:
        facts.append(f"- From: `hf://{model.hub}` at `{model.revision or 'a revision you name'}`")
    if model.package:
        facts.append(f"- Also in the Python package `{model.package.distribution}` {model.package.version}")
    if model.built_by:
        facts.append(f"- Built by `{model.built_by}`")
    if found := model.preprocessing:
        how = f"{found.resize}" + (f" side to {found.shortest_px}, middle cut out" if found.shortest_px else "")
        kind = f", {found.interpolation}" if found.interpolation else ""
        facts.append(
            f"- Pictures: {found.side_px} × {found.side_px} pixels, {how}{kind}; mean {list(found.mean)}, "
            f"scale {list(found.std)}"
        )
    if model.max_tokens:
        facts.append(f"- Texts: {model.max_tokens:,} tokens at most")
    if model.matryoshka:
        facts.append("- Rows may be cut shorter with `dimensions`")
    for name, prompt in (("stored", model.prompts.document), ("searched", model.prompts.query)):
        if prompt:
            facts.append(f"- In front of a text that is {name}: `{prompt}`")
    return f"## {model.name}\n\n" + "\n".join(facts) + "\n"
