"""What stands where: the built-in stages of a kind of job, and its own stages between them.

Layer: `worker.stages`; pure. Refuses what does not fit before any work starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pagemill_core.api.v1alpha1.workers import Stage as StageSpec
from pagemill_core.errors import InvalidSpecError
from pagemill_worker.stages.contract import PageImage, PageText, Vector

WRITE = "write"


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A built-in stage. `gives` is what own stages directly behind it take; None where none may stand."""

    name: str
    gives: type | None = None


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The built-in stages of a kind of job in order; `model` names the one that holds the model."""

    model: str
    built_in: tuple[BuiltIn, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(stage.name for stage in self.built_in)


OCR = Pipeline(
    "recognise", (BuiltIn("fetch"), BuiltIn("decode", PageImage), BuiltIn("recognise", PageText), BuiltIn(WRITE))
)
PICTURES = Pipeline(
    "encode", (BuiltIn("fetch"), BuiltIn("decode", PageImage), BuiltIn("encode", Vector), BuiltIn(WRITE))
)
TEXTS = Pipeline("encode", (BuiltIn("fetch", str), BuiltIn("encode", Vector), BuiltIn(WRITE)))
LABELS = Pipeline("classify", (BuiltIn("fetch"), BuiltIn("classify"), BuiltIn(WRITE)))
CLASSIFIED_BOOKS = Pipeline("encode", (*PICTURES.built_in[:3], BuiltIn("classify"), BuiltIn(WRITE)))
TENSORS = Pipeline("infer", (BuiltIn("fetch"), BuiltIn("infer"), BuiltIn(WRITE)))


@dataclass(frozen=True, slots=True)
class Arranged:
    """A job's own stages in the order they run: in front of the model, and behind it."""

    before: tuple[StageSpec, ...] = ()
    behind: tuple[StageSpec, ...] = ()

    @property
    def all(self) -> tuple[StageSpec, ...]:
        return self.before + self.behind


def arrange(pipeline: Pipeline, stages: Sequence[StageSpec]) -> Arranged:
    """Put a job's own stages in order. Raises: InvalidSpecError for a name that the job's pipeline does not have."""
    own = {stage.name: stage for stage in stages if stage.use is not None}
    for stage in stages:
        if stage.use is None and stage.name not in pipeline.names:
            raise InvalidSpecError(f"stages: this job has no stage {stage.name}", advice=_has(pipeline))
    anchors = {name: _anchor(pipeline, own, stage) for name, stage in own.items()}
    at_model = pipeline.names.index(pipeline.model)
    before: list[StageSpec] = []
    behind: list[StageSpec] = []
    for place, built_in in enumerate(pipeline.built_in):
        there = _in_order(
            built_in.name, {name: own[name] for name, anchor in anchors.items() if anchor == built_in.name}
        )
        (before if place < at_model else behind).extend(there)
    return Arranged(tuple(before), tuple(behind))


def check_types(pipeline: Pipeline, arranged: Arranged, types: Mapping[str, tuple[type, type]]) -> None:
    """Compare what each own stage takes and gives (`types` by name) with its neighbours. Raises: InvalidSpecError."""
    _check_row(arranged.before, types, _given_before(pipeline), "what comes before the model")
    _check_row(arranged.behind, types, _given_by_model(pipeline), f"what {pipeline.model} gives")


def _check_row(
    stages: Sequence[StageSpec], types: Mapping[str, tuple[type, type]], between: type | None, source: str
) -> None:
    """`between` is what comes to the first of the stages, and what has to come out of the last."""
    coming = between
    for stage in stages:
        takes, gives = types[stage.name]
        if takes is not coming:
            raise InvalidSpecError(
                f"stages: {stage.name} takes {takes.__name__}, but {source} is {_name(coming)}",
                advice="put it after another stage, or name another class",
            )
        coming, source = gives, f"what {stage.name} gives"
    if coming is not between:
        raise InvalidSpecError(
            f"stages: {stages[-1].name} gives {_name(coming)}, but the stage behind it takes {_name(between)}"
        )


def _anchor(pipeline: Pipeline, own: Mapping[str, StageSpec], stage: StageSpec) -> str:
    """The built-in stage that an own stage stands behind, over however many own ones."""
    open_after = [built_in.name for built_in in pipeline.built_in if built_in.gives is not None]
    if not open_after:
        raise InvalidSpecError(f"stages: {stage.name}: this job takes no stages of your own", advice="remove it")
    seen = {stage.name}
    after = stage.after
    while after is not None and after in own:
        if after in seen:
            raise InvalidSpecError(f"stages: {stage.name} and {after} stand after one another", advice="mend `after`")
        seen.add(after)
        after = own[after].after
    if after is None:
        return open_after[-1]
    if after not in open_after:
        raise InvalidSpecError(
            f"stages: nothing of your own can stand after {after} in this job",
            advice=f"say after: {' or '.join([*open_after, *sorted(set(own) - seen)])}",
        )
    return after


def _in_order(anchor: str, stages: Mapping[str, StageSpec]) -> list[StageSpec]:
    """Own stages behind one built-in stage: each after the one it names, several after one by name."""
    ordered: list[StageSpec] = []

    def add(behind: str | None) -> None:
        for name in sorted(name for name, stage in stages.items() if stage.after == behind):
            ordered.append(stages[name])
            add(name)

    add(anchor)
    add(None)
    return ordered


def _given_before(pipeline: Pipeline) -> type | None:
    at_model = pipeline.names.index(pipeline.model)
    return next((stage.gives for stage in pipeline.built_in[:at_model] if stage.gives is not None), None)


def _given_by_model(pipeline: Pipeline) -> type | None:
    return pipeline.built_in[pipeline.names.index(pipeline.model)].gives


def _has(pipeline: Pipeline) -> str:
    return f"its stages are {', '.join(pipeline.names)}; one of your own needs `use`"


def _name(kind: type | None) -> str:
    return "nothing" if kind is None else kind.__name__
