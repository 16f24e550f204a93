"""Reading a job's file: all problems at once, each with its line, its field and what to do; never a traceback."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pagemill_core.api.documents import plain_scalar
from pagemill_core.api.load import dump_job, load_jobs, read_jobs
from pagemill_core.api.v1alpha1 import EmbeddingJob, OcrJob
from pagemill_core.errors import InvalidSpecError

HEAD = "apiVersion: pagemill.dev/v1alpha1\nkind: OcrJob\nmetadata: {name: comics}\n"
SPEC = "spec:\n  source: {images: {uri: pages}}\n  output: {uri: out}\n"


def told(text: str) -> list[str]:
    """The lines of the error that a text gives."""
    with pytest.raises(InvalidSpecError) as caught:
        load_jobs(text, origin="job.yaml")
    return caught.value.message.splitlines()


def job_with(lines: str) -> str:
    return HEAD + SPEC + lines


def test_load_several_documents_come_in_their_order() -> None:
    second = HEAD.replace("comics", "second") + SPEC
    jobs = load_jobs(f"---\n# first\n{HEAD}{SPEC}---\n---\n{second}...\n", origin="job.yaml")
    assert [job.metadata.name for job in jobs] == ["comics", "second"]


def test_load_json_is_read_with_tabs_and_surrogate_pairs() -> None:
    text = '{\t"apiVersion": "pagemill.dev/v1alpha1", "kind": "OcrJob", "metadata": {"name": "a"},'
    text += '"spec": {"source": {"images": {"uri": "\\ud83d\\udcd6"}}, "output": {"uri": "out"}}}'
    job = load_jobs(text, origin="job.json")[0]
    assert isinstance(job, OcrJob)
    assert job.spec.source.images is not None
    assert job.spec.source.images.uri == "\U0001f4d6"


def test_load_byte_order_mark_and_crlf_are_no_trouble() -> None:
    assert load_jobs("\ufeff" + (HEAD + SPEC).replace("\n", "\r\n"), origin="job.yaml") == load_jobs(
        HEAD + SPEC, origin="job.yaml"
    )


def test_load_all_problems_of_all_documents_are_told_at_once() -> None:
    text = job_with("  workers: {parallelism: -1, pol: gpu}\n  budget: {maxCost: 3.5}\n") + "---\nkind: Deployment\n"
    assert told(text) == [
        "job.yaml:7: spec.workers.parallelism: must be 0 or more",
        "job.yaml:7: spec.workers.pol: is no field here; did you mean pool?",
        "job.yaml:8: spec.budget.maxCost: must be text; put it in quotes",
        "job.yaml:10: apiVersion: must be pagemill.dev/v1alpha1",
        "job.yaml:10: kind: must be OcrJob or EmbeddingJob",
    ]


@pytest.mark.parametrize(
    ("lines", "want"),
    [
        ("  maxItem: 5\n", "7: spec.maxItem: is no field here; did you mean maxItems?"),
        (
            "  sharding: {x: 5}\n",
            "7: spec.sharding.x: is no field here; remove it; the fields here are itemsPerShard, ",
        ),
        ("  suspend: 'yes'\n", "7: spec.suspend: must be true or false, without quotes"),
        ("  maxItems: '5'\n", "7: spec.maxItems: must be a whole number, without quotes"),
        ("  maxItems: 5.5\n", "7: spec.maxItems: must be a whole number"),
        ("  maxItems: 0\n", "7: spec.maxItems: must be 1 or more"),
        ("  stages: recognise\n", "7: spec.stages: must be a list"),
        ("  workers: 3\n", "7: spec.workers: must be an object with fields"),
        ("  workers: {processesPerPod: 0}\n", "7: spec.workers.processesPerPod: write a whole number above 0, or auto"),
        ("  workers: {pool: no}\n", "7: spec.workers.pool: must be text; put it in quotes (without, YAML reads no"),
        ("  engine:\n    name: tessract\n", "8: spec.engine.name: must be rapidocr, paddleocr, tesseract"),
        (
            "  engine:\n    languages:\n    - en\n    - 7\n",
            "10: spec.engine.languages[1]: must be text; put it in quotes",
        ),
        ("  engine: {languages: ['x!']}\n", "7: spec.engine.languages[0]: must be a language code such as en"),
        ("  engine: {options: 5}\n", "7: spec.engine.options: must be an object with fields"),
        ("  engine: {options: {a: .inf}}\n", None),
        ("  budget: {maxCost: '0'}\n", "7: spec.budget.maxCost: nothing can be done for nothing"),
        ("  budget: {maxCost: cheap}\n", '7: spec.budget.maxCost: must be a decimal number in quotes, such as "25.00"'),
        ("  retries: {maxFailedItems: 5 %}\n", "7: spec.retries.maxFailedItems: must be a count or a percentage"),
        ("  stages: [{name: own}]\n", "7: spec.stages[0].name: a stage of your own needs use and a new name"),
        ("  stages: [{name: write}, {name: write}]\n", "7: spec.stages: write stands here twice; keep one"),
        ("  dependsOn: [{kind: OcrJob, name: comics}]\n", "7: spec.dependsOn: a job cannot wait for itself"),
        ("  maxItems: 5\n  maxItems: 6\n", "8: spec.maxItems: is given twice; keep one"),
        ("  maxItems: !!int '5'\n", "7: spec.maxItems: the YAML tag tag:yaml.org,2002:int is not allowed here"),
        ("  <<: 5\n", "7: spec.<<: must stand for an object with fields"),
    ],
)
def test_load_problem_is_told_with_line_field_and_what_to_do(lines: str, want: str | None) -> None:
    if want is None:
        assert load_jobs(job_with(lines), origin="job.yaml")  # text, not a number: YAML's infinities are no JSON
        return
    assert any(line.startswith(f"job.yaml:{want}") for line in told(job_with(lines))), told(job_with(lines))


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", "job.yaml: holds no job"),
        ("# nothing\n---\n", "job.yaml: holds no job"),
        ("just text", "job.yaml:1: is no job"),
        ("[1, 2]", "job.yaml:1: is no job"),
        ("a: [1", "job.yaml:1: is not YAML: expected ',' or ']'"),
        ("a: *b", "job.yaml:1: is not YAML: *b stands for nothing before it"),
        ("a: &a [*a]", "job.yaml:1: is not YAML: *a stands for nothing before it"),
        ("? [a]\n: b", "job.yaml:1: is not YAML: a field's name must be a word"),
        ("a: \x00", "job.yaml: is not YAML"),
        ('a: "\\U99999999"', "job.yaml"),
        ("[" * 100_000, "job.yaml:1: is not YAML: parts lie too deep in each other"),
        ('{"a":' * 50_000, "job.yaml:1: is not YAML: parts lie too deep in each other"),
        (HEAD, "job.yaml:1: spec: is required: What to do."),
        (HEAD + "spec: {source: {images: {uri: x}}}\n", "job.yaml:4: spec.output: is required: Where results go."),
        (HEAD.replace("{name: comics}", "{}") + SPEC, "job.yaml:3: metadata.name: is required"),
        (HEAD.replace("comics", "Comics!") + SPEC, "job.yaml:3: metadata.name: must be lower-case letters"),
        (
            HEAD.replace("comics", "comics, lables: {}") + SPEC,
            "job.yaml:3: metadata.lables: is no field of Kubernetes'",
        ),
        (HEAD.replace("v1alpha1", "v2") + SPEC, "job.yaml:1: apiVersion: must be pagemill.dev/v1alpha1"),
        (HEAD + SPEC + "---\n" + HEAD + SPEC, "job.yaml:10: metadata.name: another job of this file has this name"),
    ],
)
def test_load_text_that_is_no_job_is_refused(text: str, want: str) -> None:
    assert told(text)[0].startswith(want), told(text)


def test_load_aliases_that_expand_without_end_are_refused() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "too much for a job's file" in told("\n".join(levels))[0]


def test_load_text_of_absurd_length_is_refused() -> None:
    assert "too long for a job's file" in told("#" * (8 * 1024 * 1024 + 1))[0]


def test_load_aliases_and_merge_keys_are_read_as_kubectl_reads_them() -> None:
    text = job_with("  engine: &e {name: tesseract, languages: ['en']}\n") + "---\n"
    text += HEAD.replace("comics", "b") + SPEC
    text += "  workers: {template: {labels: &l {a: '1', b: '2'}, annotations: {<<: *l, b: '3'}}}\n"
    template = load_jobs(text, origin="job.yaml")[1].spec.workers.template
    assert template is not None
    assert template.annotations == {"a": "1", "b": "3"}


def test_load_unquoted_norwegian_stays_a_language_and_is_warned_of() -> None:
    loaded = read_jobs(job_with("  engine:\n    languages:\n    - en\n    - no\n"), origin="job.yaml")
    job = loaded.jobs[0]
    assert isinstance(job, OcrJob)
    assert job.spec.effective_engine.languages == ("en", "no")
    want = 'job.yaml:10: spec.engine.languages[1]: put "no" in quotes: kubectl reads this as a boolean'
    assert [str(warning) for warning in loaded.warnings] == [want]


def test_load_single_letters_that_kubectl_misreads_are_warned_of() -> None:
    text = job_with("  workers: {template: {labels: {y: 'a', axis: y}}}\n")
    loaded = read_jobs(text, origin="job.yaml")
    template = loaded.jobs[0].spec.workers.template
    assert template is not None
    assert template.labels == {"y": "a", "axis": "y"}
    assert [warning.path for warning in loaded.warnings] == [
        "spec.workers.template.labels.y",
        "spec.workers.template.labels.axis",
    ]


def test_load_words_that_kubectl_reads_as_booleans_are_booleans() -> None:
    assert load_jobs(job_with("  suspend: yes\n"), origin="job.yaml")[0].spec.suspend is True


def test_load_status_is_passed_over_as_on_creation() -> None:
    text = HEAD + SPEC + "status: {phase: Running, plannedAt: '2026-01-02T03:04:05Z', future: 1}\n"
    assert load_jobs(text, origin="job.yaml")[0].status is None


def test_load_secret_in_the_wrong_place_is_not_shown() -> None:
    text = job_with(
        "  storage: {endpoint: 'http://u:planted-secret@h', secretRef: planted-secret, key: planted-secret}\n"
    )
    lines = told(text)
    assert len(lines) == 3
    assert "planted-secret" not in "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", None),
        ("~", None),
        ("Null", None),
        ("TRUE", True),
        ("off", False),
        ("12", 12),
        ("-1_000", -1000),
        ("0x1f", 31),
        ("0o17", 15),
        ("017", 15),
        ("089", 89.0),
        ("1.5e3", 1500.0),
        ("1:30", "1:30"),
        ("2026-01-02", "2026-01-02"),
        (".inf", ".inf"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_plain_scalar_means_what_kubectl_takes_it_for(text: str, want: Any) -> None:
    value = plain_scalar(text)
    assert value == want or text == "9" * 5000
    assert type(value) is type(want) or text == "9" * 5000


@pytest.mark.parametrize(
    "word", ["no", "y", "N", "on", "true", "1", "1.0", "null", "~", "0x1f", " a", "2026-01-02", ""]
)
def test_dump_word_that_yaml_would_misread_comes_back_as_text(word: str) -> None:
    job = OcrJob.model_validate(
        {
            "metadata": {"name": "comics", "labels": {word: word}},
            "spec": {"source": {"images": {"uri": "pages"}}, "output": {"uri": "out"}},
        }
    )
    loaded = read_jobs(dump_job(job), origin="dumped")
    assert loaded.jobs == (job,)
    assert loaded.warnings == ()


def test_dump_says_what_was_given_and_no_more() -> None:
    job = EmbeddingJob.model_validate(
        {
            "metadata": {"name": "laion"},
            "spec": {
                "source": {"dataset": {"uri": "s3://library/laion/"}},
                "visual": {"model": {"name": "clip-vit-b-32"}},
                "output": {"uri": "s3://library/out"},
            },
            "status": {"phase": "Running"},
        }
    )
    assert yaml.safe_load(dump_job(job)) == {
        "apiVersion": "pagemill.dev/v1alpha1",
        "kind": "EmbeddingJob",
        "metadata": {"name": "laion"},
        "spec": {
            "source": {"dataset": {"uri": "s3://library/laion/"}},
            "visual": {"model": {"name": "clip-vit-b-32"}},
            "output": {"uri": "s3://library/out"},
        },
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(max_size=200) | st.text(alphabet="{}[]:,-&*!?|>%@`'\"#\n\t ayn01~<", max_size=60))
def test_load_any_text_gives_jobs_or_a_named_error(text: str) -> None:
    try:
        load_jobs(text, origin="job.yaml")
    except InvalidSpecError as error:
        assert error.message.startswith("job.yaml")


@given(
    st.dictionaries(st.sampled_from(["source", "engine", "output", "workers", "stages", "budget", "x"]), json_values)
)
def test_load_any_spec_gives_jobs_or_a_named_error(spec: dict[str, Any]) -> None:
    value = {"apiVersion": "pagemill.dev/v1alpha1", "kind": "OcrJob", "metadata": {"name": "a"}, "spec": spec}
    try:
        load_jobs(json.dumps(value), origin="job.json")
    except InvalidSpecError as error:
        assert all(line.startswith("job.json:") for line in error.message.splitlines())
