"""Rules over whole specs and jobs: what goes together with what.

Layer: `core.api`.
"""

from __future__ import annotations

from typing import Any

from pagemill_core.api.rules.rule import Example, Rule, exactly_one

_DIGEST = "sha256:" + "0" * 64
_OUT = {"uri": "s3://library/out"}
_MODEL = {"model": {"name": "clip-vit-b-32"}}
_BOOKS = {"books": {"uri": "s3://library/books", "annotations": "s3://library/comics.json"}}
_TENSORS = {"tensors": {"uri": "s3://library/partitions/"}}
_INFERENCE = {"adapter": "torchScript", "weights": "s3://library/model.pt"}
_CLASSIFY = {"checkpoint": "s3://library/best.pt"}
_DATASET = {"dataset": {"uri": "s3://library/laion/"}}
_GROUPED = {"ocrJob": {"name": "comics", "groupBy": "directory"}}

_IS_GROUPED = (
    "(has(self.source.ocrJob) && has(self.source.ocrJob.groupBy) && self.source.ocrJob.groupBy == 'directory')"
)
_HAS_BOOKS = f"(has(self.source.books) || has(self.source.retryOf) || {_IS_GROUPED})"


def _spec(source: Example, *, formats: list[str] | None = None, **parts: Example) -> dict[str, Any]:
    output = _OUT if formats is None else {**_OUT, "formats": formats}
    return {"source": source, "output": output, **parts}


def _job(kind: str, spec: Example, name: str = "comics") -> dict[str, Any]:
    return {"apiVersion": "pagemill.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _wants(spec: Any, *formats: str) -> bool:
    return any(name in formats for name in spec.output.formats or ())


def _wants_cel(*formats: str) -> str:
    listed = " || ".join(f"'{name}' in self.output.formats" for name in formats)
    return f"(has(self.output.formats) && ({listed}))"


def _may_have_books(spec: Any) -> bool:
    return spec.has_books or spec.source.retry_of is not None


def _depends_on_itself(job: Any) -> bool:
    return any((other.kind, other.name) == (job.kind, job.metadata.name) for other in job.spec.depends_on or ())


MODEL_RULES = (
    exactly_one(
        "ModelRef",
        {"name": "name", "uri": "uri"},
        good=[{"name": "siglip-so400m-patch14-384"}, {"uri": "s3://library/models/clip"}],
        bad=[{}, {"name": "clip-vit-b-32", "uri": "s3://library/models/clip"}],
    ),
    Rule(
        scope="ModelRef",
        cel="has(self.uri) || !(has(self.revision) || has(self.digest) || has(self.loader)"
        " || (has(self.trust) && self.trust != 'none'))",
        holds=lambda model: (
            model.uri is not None
            or not (model.revision or model.digest or model.loader or model.effective_trust != "none")
        ),
        message="revision, digest, loader and trust of a named model stand in the registry; remove them, or give uri",
        good=[{"uri": "models/clip", "loader": "openClip"}, {"name": "clip-vit-b-32", "trust": "none"}],
        bad=[{"name": "clip-vit-b-32", "loader": "openClip"}, {"name": "clip-vit-b-32", "trust": "pickle"}],
    ),
    Rule(
        scope="ModelRef",
        cel="!has(self.uri) || !self.uri.startsWith('hf://') || has(self.revision)",
        holds=lambda model: model.uri is None or not model.uri.startswith("hf://") or model.revision is not None,
        message="a hub model needs revision, the commit to use, so that every run loads the same files",
        field=".revision",
        good=[{"uri": "hf://openai/clip-vit-base-patch32", "revision": "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"}],
        bad=[{"uri": "hf://openai/clip-vit-base-patch32"}],
    ),
    Rule(
        scope="ModelRef",
        cel="!has(self.trust) || self.trust == 'none' || has(self.digest)",
        holds=lambda model: model.effective_trust == "none" or model.digest is not None,
        message="trust lets the model's files run code, so it needs digest; `pagemill models verify` prints it",
        field=".digest",
        good=[{"uri": "models/own", "trust": "python", "digest": _DIGEST}, {"uri": "models/own", "trust": "none"}],
        bad=[{"uri": "models/own", "trust": "python"}, {"uri": "models/own", "trust": "pickle"}],
    ),
    Rule(
        scope="Inference",
        cel="self.adapter != 'pickle' || (has(self.trust) && self.trust == 'pickle' && has(self.digest))",
        holds=lambda model: (
            model.adapter != "pickle" or (model.effective_trust == "pickle" and model.digest is not None)
        ),
        message="a pickled model may run any code: add trust: pickle and digest, or store the model in another form",
        field=".adapter",
        good=[{**_INFERENCE, "adapter": "pickle", "trust": "pickle", "digest": _DIGEST}, _INFERENCE],
        bad=[{**_INFERENCE, "adapter": "pickle"}, {**_INFERENCE, "adapter": "pickle", "trust": "pickle"}],
    ),
    Rule(
        scope="Inference",
        cel="self.adapter != 'safetensors' || has(self.modelClass)",
        holds=lambda model: model.adapter != "safetensors" or model.model_class is not None,
        message="safetensors hold weights only: add modelClass, the class that uses them",
        field=".adapter",
        good=[{**_INFERENCE, "adapter": "safetensors", "modelClass": "galaxies.model:Redshift"}],
        bad=[{**_INFERENCE, "adapter": "safetensors"}],
    ),
    Rule(
        scope="EmbeddingOutput",
        cel="!has(self.index) || (has(self.formats) && 'faiss' in self.formats)",
        holds=lambda output: output.index is None or "faiss" in (output.formats or ()),
        message="index says how faiss is built: add faiss to formats, or remove index",
        field=".index",
        good=[{**_OUT, "formats": ["parquet", "faiss"], "index": {"kind": "hnsw"}}, _OUT],
        bad=[{**_OUT, "index": {"kind": "hnsw"}}, {**_OUT, "formats": ["parquet"], "index": {}}],
    ),
)

EMBEDDING_RULES = (
    Rule(
        scope="EmbeddingJobSpec",
        cel="has(self.visual) || has(self.text) || has(self.inference) || has(self.classify)",
        holds=lambda spec: any((spec.visual, spec.text, spec.inference, spec.classify)),
        message="say what to do with the items: give visual, text, inference or classify",
        good=[_spec(_DATASET, visual=_MODEL), _spec(_DATASET, text=_MODEL)],
        bad=[_spec(_DATASET)],
    ),
    Rule(
        scope="EmbeddingJobSpec",
        cel="has(self.inference) ? (has(self.source.tensors) || has(self.source.retryOf)) : !has(self.source.tensors)",
        holds=lambda spec: (
            bool(spec.source.tensors or spec.source.retry_of) if spec.inference else spec.source.tensors is None
        ),
        message="inference and source.tensors go together: give both or neither",
        field=".source",
        good=[_spec(_TENSORS, inference=_INFERENCE), _spec(_DATASET, visual=_MODEL)],
        bad=[_spec(_TENSORS, visual=_MODEL), _spec(_DATASET, inference=_INFERENCE)],
    ),
    Rule(
        scope="EmbeddingJobSpec",
        cel="!has(self.inference) || !(has(self.visual) || has(self.text) || has(self.classify))",
        holds=lambda spec: spec.inference is None or not (spec.visual or spec.text or spec.classify),
        message="inference runs alone: move visual, text and classify to a job of their own",
        good=[_spec(_TENSORS, inference=_INFERENCE)],
        bad=[_spec(_TENSORS, inference=_INFERENCE, visual=_MODEL)],
    ),
    Rule(
        scope="EmbeddingJobSpec",
        cel="!has(self.source.embeddingJob) || (has(self.classify) && !has(self.visual) && !has(self.text))",
        holds=lambda spec: (
            spec.source.embedding_job is None or (spec.classify is not None and not (spec.visual or spec.text))
        ),
        message="source.embeddingJob holds finished tensors for classify: give classify, without visual and text",
        field=".source",
        good=[_spec({"embeddingJob": {"name": "books"}}, classify=_CLASSIFY)],
        bad=[
            _spec({"embeddingJob": {"name": "books"}}, visual=_MODEL),
            _spec({"embeddingJob": {"name": "books"}}, visual=_MODEL, classify=_CLASSIFY),
        ],
    ),
    Rule(
        scope="EmbeddingJobSpec",
        cel=f"!(has(self.source.books) || {_IS_GROUPED}) || (has(self.visual) && has(self.text))",
        holds=lambda spec: not spec.has_books or (spec.visual is not None and spec.text is not None),
        message="a book has a visual and a text tensor: give both visual and text",
        good=[_spec(_BOOKS, visual=_MODEL, text=_MODEL), _spec(_GROUPED, visual=_MODEL, text=_MODEL)],
        bad=[_spec(_BOOKS, visual=_MODEL), _spec(_GROUPED, text=_MODEL)],
    ),
    Rule(
        scope="EmbeddingJobSpec",
        cel=f"!has(self.classify) || has(self.source.embeddingJob) || {_HAS_BOOKS}",
        holds=lambda spec: spec.classify is None or spec.source.embedding_job is not None or _may_have_books(spec),
        message="classify reads books: use source.books, source.ocrJob with groupBy: directory, or source.embeddingJob",
        field=".classify",
        good=[_spec(_BOOKS, visual=_MODEL, text=_MODEL, classify=_CLASSIFY)],
        bad=[_spec(_DATASET, visual=_MODEL, classify=_CLASSIFY)],
    ),
    Rule(
        scope="EmbeddingJobSpec",
        cel="!has(self.source.texts) || (has(self.text) && !has(self.visual))",
        holds=lambda spec: spec.source.texts is None or (spec.text is not None and spec.visual is None),
        message="source.texts holds text only: give text, without visual",
        field=".source",
        good=[_spec({"texts": {"uri": "s3://library/texts.parquet"}}, text=_MODEL)],
        bad=[
            _spec({"texts": {"uri": "s3://library/texts.parquet"}}, visual=_MODEL),
            _spec({"texts": {"uri": "s3://library/texts.parquet"}}, visual=_MODEL, text=_MODEL),
        ],
    ),
    Rule(
        scope="EmbeddingJobSpec",
        cel="!(has(self.source.images) || has(self.source.manifest)) || (has(self.visual) && !has(self.text))",
        holds=lambda spec: (
            not (spec.source.images or spec.source.manifest) or (spec.visual is not None and spec.text is None)
        ),
        message="source.images and source.manifest hold pictures only: give visual, without text",
        field=".source",
        good=[_spec({"images": {"uri": "s3://library/photos/"}}, visual=_MODEL)],
        bad=[
            _spec({"images": {"uri": "s3://library/photos/"}}, text=_MODEL),
            _spec({"manifest": {"uri": "s3://library/m.csv"}}, visual=_MODEL, text=_MODEL),
        ],
    ),
    Rule(
        scope="EmbeddingJobSpec",
        cel=f"!{_wants_cel('bookTensors')} || {_HAS_BOOKS}",
        holds=lambda spec: not _wants(spec, "bookTensors") or _may_have_books(spec),
        message="bookTensors needs books: use source.books or source.ocrJob with groupBy: directory, or remove it",
        field=".output.formats",
        good=[_spec(_BOOKS, formats=["bookTensors", "parquet", "faiss"], visual=_MODEL, text=_MODEL)],
        bad=[_spec(_DATASET, formats=["bookTensors"], visual=_MODEL)],
    ),
    Rule(
        scope="EmbeddingJobSpec",
        cel=f"!{_wants_cel('labels')} || has(self.classify)",
        holds=lambda spec: not _wants(spec, "labels") or spec.classify is not None,
        message="labels needs classify: add it, or remove labels",
        field=".output.formats",
        good=[_spec(_BOOKS, formats=["labels"], visual=_MODEL, text=_MODEL, classify=_CLASSIFY)],
        bad=[_spec(_BOOKS, formats=["labels"], visual=_MODEL, text=_MODEL)],
    ),
    Rule(
        scope="EmbeddingJobSpec",
        cel=f"!{_wants_cel('pt', 'rankFiles')} || has(self.inference)",
        holds=lambda spec: not _wants(spec, "pt", "rankFiles") or spec.inference is not None,
        message="pt and rankFiles are made by inference: add it, or remove them",
        field=".output.formats",
        good=[_spec(_TENSORS, formats=["pt", "rankFiles"], inference=_INFERENCE)],
        bad=[_spec(_DATASET, formats=["pt"], visual=_MODEL), _spec(_DATASET, formats=["rankFiles"], visual=_MODEL)],
    ),
    Rule(
        scope="EmbeddingJobSpec",
        cel=f"!{_wants_cel('faiss')} || has(self.visual) || has(self.text)",
        holds=lambda spec: not _wants(spec, "faiss") or spec.visual is not None or spec.text is not None,
        message="faiss needs vectors: give visual or text, or remove faiss",
        field=".output.formats",
        good=[_spec(_DATASET, formats=["faiss"], visual=_MODEL)],
        bad=[_spec(_TENSORS, formats=["faiss"], inference=_INFERENCE)],
    ),
)

_PAGES = {"images": {"uri": "s3://library/pages/"}}
_RETRY = {"retryOf": {"run": "00000007-9c66e1f0"}}

JOB_RULES = (
    Rule(
        scope="JobSpec",
        cel="!(has(self.incremental) && self.incremental) || !has(self.output.files)"
        " || self.output.files == 'Partitioned'",
        holds=lambda spec: not spec.effective_incremental or spec.output.files in (None, "Partitioned"),
        message="incremental runs only add files: remove output.files, or set it to Partitioned",
        field=".output.files",
        good=[
            {**_spec(_PAGES), "incremental": True},
            {**_spec(_PAGES), "output": {**_OUT, "files": "Partitioned"}, "incremental": True},
        ],
        bad=[{**_spec(_PAGES), "output": {**_OUT, "files": "Single"}, "incremental": True}],
    ),
    Rule(
        scope="JobSpec",
        cel="!(has(self.incremental) && self.incremental) || !has(self.source.retryOf)",
        holds=lambda spec: not spec.effective_incremental or spec.source.retry_of is None,
        message="retryOf is exactly the failed items of one run: remove incremental, or give another source",
        field=".source",
        good=[_spec(_RETRY), {**_spec(_RETRY), "incremental": False}],
        bad=[{**_spec(_RETRY), "incremental": True}],
    ),
    *(
        Rule(
            scope=kind,
            cel="!has(self.spec.dependsOn) || !has(self.metadata.name)"
            f" || !self.spec.dependsOn.exists(other, other.kind == '{kind}' && other.name == self.metadata.name)",
            holds=lambda job: not _depends_on_itself(job),
            message="a job cannot wait for itself; remove it from dependsOn",
            field=".spec.dependsOn",
            good=[_job(kind, {**spec, "dependsOn": [{"kind": kind, "name": "cleanup"}]})],
            bad=[_job(kind, {**spec, "dependsOn": [{"kind": kind, "name": "comics"}]})],
        )
        for kind, spec in (("OcrJob", _spec(_PAGES)), ("EmbeddingJob", _spec(_DATASET, visual=_MODEL)))
    ),
    Rule(
        scope="EmbeddingJob",
        cel="!has(self.spec.source.embeddingJob) || !has(self.spec.source.embeddingJob.name)"
        " || !has(self.metadata.name) || self.spec.source.embeddingJob.name != self.metadata.name",
        holds=lambda job: (
            job.spec.source.embedding_job is None
            or job.spec.source.embedding_job.name is None
            or job.spec.source.embedding_job.name != job.metadata.name
        ),
        message="a job cannot read its own tensors; name the EmbeddingJob that makes them",
        field=".spec.source",
        good=[_job("EmbeddingJob", _spec({"embeddingJob": {"name": "books"}}, classify=_CLASSIFY))],
        bad=[_job("EmbeddingJob", _spec({"embeddingJob": {"name": "books"}}, classify=_CLASSIFY), name="books")],
    ),
)

SPEC_RULES = (*MODEL_RULES, *EMBEDDING_RULES, *JOB_RULES)
