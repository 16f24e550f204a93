"""What the operator's benchmark counts: ages of commits as a watch saw them, and pods in the order they fall due."""

from __future__ import annotations

import pytest

from benchmarks.harness.processes import BenchmarkError
from benchmarks.scale.jobs import Shape, Where, job_of
from benchmarks.scale.player import PLAY_ANNOTATION, Agenda, Part, Play, part_of
from benchmarks.scale.stories import Stories, Story, read_commits, staleness_s
from pagemill_core.work.pod import PodStep, PodTask
from pagemill_operator.children.jobs import RunParts, wave_job
from pagemill_operator.objects import read_custom
from pagemill_operator.settings import parse_config

PLAY = Play(plan_s=1, work_s=10, finalize_s=1, shards=16)
WHERE = Where(namespace="bench", bucket="library", endpoint="http://127.0.0.1:1")


def make_job(generation: int = 1, **status: object) -> dict[str, object]:
    metadata = {"name": "job-1", "uid": "uid-1", "generation": generation}
    return {"metadata": metadata, "status": status}


def make_part(name: str, started_s: float) -> Part:
    task = PodTask(step=PodStep.WORK, run="00000001-x", output_uri="s3://library/x", owner="uid-1", epoch=1)
    return Part(name=name, task=task, job_json="{}", play=PLAY, pieces=2, is_bare=False, started_s=started_s)


def test_age_of_a_commit_ends_with_the_first_status_that_counts_it() -> None:
    story = Story("uid-1", shown=[(10.0, 1), (14.0, 4)])

    assert staleness_s(story, [8.0, 9.5, 11.0]) == [2.0, 4.5, 3.0]


def test_commit_that_no_status_ever_counted_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="2 shards were committed, the last status of uid-1 has 1"):
        staleness_s(Story("uid-1", shown=[(10.0, 1)]), [8.0, 9.0])


def test_commits_are_told_apart_by_job() -> None:
    assert read_commits(["a 1.5 0.0", "b 2.0 0.1", "a 2.5 0.0"]) == {"a": [1.5, 2.5], "b": [2.0]}


def test_story_tells_when_each_generation_was_answered() -> None:
    story = Story("uid-1")
    story.hear(make_job(1, observedGeneration=1, phase="Suspended"), 10.0)
    story.hear(make_job(2, observedGeneration=1, phase="Suspended"), 20.0)
    story.hear(make_job(2, observedGeneration=2, phase="Running", shards={"succeeded": 3}), 25.0)
    story.hear(make_job(2, observedGeneration=2, phase="Running", shards={"succeeded": 3}), 26.0)

    assert story.answered == {1: 10.0, 2: 25.0}
    assert story.shown == [(25.0, 3)]
    assert story.phases == {"Suspended": 10.0, "Running": 25.0}


def test_job_made_again_begins_a_new_story() -> None:
    stories = Stories()
    stories.hear("ADDED", make_job(1, observedGeneration=1))
    again = make_job(1)
    again["metadata"] = {"name": "job-1", "uid": "uid-2", "generation": 1}
    stories.hear("ADDED", again)

    story = stories.of("job-1")
    assert story is not None
    assert (story.uid, story.answered) == ("uid-2", {})


def test_agenda_hands_out_what_is_due_first() -> None:
    agenda = Agenda()
    agenda.add(make_part("late", -20.0), 2)
    agenda.add(make_part("early", -30.0), 1)

    assert [agenda.take()[0].name for _ in range(2)] == ["early", "late"]


def test_pod_of_the_operator_says_how_it_plays() -> None:
    custom = read_custom(
        {**job_of("job-1", Shape(play=PLAY, parallelism=2), WHERE), "metadata": {"name": "job-1", "uid": "uid-1"}}
    )
    config = parse_config({"images": {"default": "worker:1"}})
    assert custom.job is not None and config.images.default is not None
    image = config.images.default
    parts = RunParts(custom=custom, job=custom.job, config=config, image=image, run="00000001-x", epoch=1)
    template = wave_job(parts, 1, PLAY.shards, 0)["spec"]["template"]
    annotations = {**template["metadata"]["annotations"], "batch.kubernetes.io/job-completion-index": "3"}
    pod = {**template, "metadata": {**template["metadata"], "name": "job-1-w1-3", "annotations": annotations}}

    part = part_of(pod)

    assert annotations[PLAY_ANNOTATION] == PLAY.model_dump_json()
    assert (part.play, part.pieces, part.task.completion_index, part.is_bare) == (PLAY, 2, 3, False)
    assert part.due_s(2) - part.due_s(1) == 5.0
