"""The manifests of child Jobs: what they ask of the cluster, and what a plain user cannot put into them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from pagemill_core import errors
from pagemill_core.work.pod import (
    FAIL_JOB_EXIT_CODES,
    MAX_LAST_WORDS_BYTES,
    LastWords,
    PodStep,
    PodTask,
    s3_settings,
)
from pagemill_operator.children import jobs, names
from pagemill_operator.children.pods import raised_memory
from pagemill_operator.children.policy import pod_failure_policy
from pagemill_operator.objects import read_custom
from pagemill_operator.reconcile.observed import image_of
from pagemill_operator.settings import parse_config

CONFIG = parse_config(
    {
        "pools": [
            {"name": "cpu", "cpu": "4", "memory": "8Gi", "pricePerHour": "0.2"},
            {
                "name": "gpu",
                "accelerator": {"count": 2},
                "nodeSelector": {"accelerator": "h200"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "runtimeClass": "nvidia",
                "maxMemory": "20Gi",
                "memory": "8Gi",
            },
        ],
        "images": {
            "default": {"image": "worker@sha256:1", "models": [{"mountPath": "/models", "image": "models@sha256:2"}]},
            "pullSecrets": ["registry"],
        },
        "workerServiceAccount": "pagemill-worker",
        "allowedHosts": ["10.1.0.0/16"],
    }
)


def make_parts(name: str = "comics", **spec: Any) -> jobs.RunParts:
    body = {
        "apiVersion": "pagemill.dev/v1alpha1",
        "kind": "OcrJob",
        "metadata": {"name": name, "namespace": "books", "uid": "uid-1", "generation": 3, "resourceVersion": "7"},
        "spec": {
            "source": {"manifest": {"uri": "s3://library/m.csv"}},
            "output": {"uri": "s3://library/out"},
            **spec,
        },
    }
    custom = read_custom(body)
    assert custom.job is not None, custom.problem
    image = image_of(custom.job, CONFIG)
    assert image is not None
    return jobs.RunParts(custom=custom, job=custom.job, config=CONFIG, image=image, run="00000001-abcdef12", epoch=2)


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return spec


def env_of(manifest: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in pod_of(manifest)["containers"][0]["env"] if "value" in one}


def test_wave_job_is_indexed_with_few_indexes_and_a_policy() -> None:
    manifest = jobs.wave_job(make_parts(workers={"parallelism": 3}), 2, 5000, 0)

    spec = manifest["spec"]
    assert spec["completionMode"] == "Indexed"
    assert (spec["completions"], spec["parallelism"]) == (12, 3)
    assert spec["podReplacementPolicy"] == "Failed"
    assert "maxFailedIndexes" not in spec
    assert spec["suspend"] is False
    assert manifest["metadata"]["labels"]["pagemill.dev/wave"] == "2"
    assert manifest["metadata"]["ownerReferences"][0] == {
        "apiVersion": "pagemill.dev/v1alpha1",
        "kind": "OcrJob",
        "name": "comics",
        "uid": "uid-1",
        "controller": True,
        "blockOwnerDeletion": True,
    }


def test_pod_is_locked_down() -> None:
    pod = pod_of(jobs.wave_job(make_parts(), 1, 10, 0))
    container = pod["containers"][0]

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["restartPolicy"] == "Never"
    assert "hostPath" not in json.dumps(pod)
    assert pod["serviceAccountName"] == "pagemill-worker"


def test_task_travels_through_the_environment_unchanged() -> None:
    parts = make_parts(storage={"secretRef": {"name": "pagemill-s3"}, "caSecretRef": {"name": "pagemill-ca"}})
    manifest = jobs.wave_job(parts, 4, 100, 0)

    env = {name: value.replace("$$", "$") for name, value in env_of(manifest).items()}
    task = PodTask.from_env({**env, "JOB_COMPLETION_INDEX": "3", "PATH": "/bin"})

    assert task.step is PodStep.WORK
    assert (task.run, task.owner, task.epoch, task.wave) == ("00000001-abcdef12", "uid-1", 2, 4)
    assert (task.completions, task.completion_index) == (4, 3)
    assert (task.pool, task.price_per_hour) == ("cpu", "0.2")
    assert str(task.store_secret_path) == "/var/run/pagemill/store"
    assert str(task.ca_path) == "/var/run/pagemill/ca/ca.crt"
    assert task.api_key_path is None
    assert task.allowed_hosts == "10.1.0.0/16"


def test_task_that_lacks_a_variable_names_it() -> None:
    with pytest.raises(errors.InvalidSpecError, match="PAGEMILL_RUN"):
        PodTask.from_env({"PAGEMILL_STEP": "plan", "PAGEMILL_OUTPUT_URI": "s3://b/o", "PAGEMILL_OWNER": "u"})


def test_job_is_mounted_without_status_and_versions() -> None:
    manifest = jobs.plan_job(make_parts())

    text = manifest["spec"]["template"]["metadata"]["annotations"]["pagemill.dev/job-json"]
    job = json.loads(text)
    mounts = {mount["name"]: mount for mount in pod_of(manifest)["containers"][0]["volumeMounts"]}

    assert job["metadata"] == {"name": "comics", "namespace": "books", "uid": "uid-1"}
    assert job["spec"]["output"] == {"uri": "s3://library/out"}
    assert "status" not in job
    assert mounts["job"] == {"name": "job", "mountPath": "/etc/pagemill", "readOnly": True}
    assert mounts["models-0"]["mountPath"] == "/models"
    assert "readOnly" not in mounts["tmp"]


def test_users_variables_come_literally_and_cannot_shadow_ours() -> None:
    template = {"env": [{"name": "GREETING", "value": "$(PAGEMILL_RUN) costs $5"}]}
    manifest = jobs.plan_job(make_parts(workers={"template": template}))

    names_of_env = [one["name"] for one in pod_of(manifest)["containers"][0]["env"]]

    assert env_of(manifest)["GREETING"] == "$$(PAGEMILL_RUN) costs $$5"
    assert len(names_of_env) == len(set(names_of_env))


def test_template_adds_what_is_allowed() -> None:
    template = {
        "labels": {"team": "library"},
        "annotations": {"sidecar.istio.io/inject": "false"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "pagemill-registry"}],
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
    }
    manifest = jobs.wave_job(make_parts(workers={"template": template}), 1, 10, 0)
    pod, metadata = pod_of(manifest), manifest["spec"]["template"]["metadata"]

    assert metadata["labels"]["team"] == "library"
    assert metadata["labels"]["pagemill.dev/uid"] == "uid-1"
    assert metadata["annotations"]["karpenter.sh/do-not-disrupt"] == "true"
    assert pod["tolerations"] == [{"key": "dedicated", "operator": "Exists"}]
    assert pod["imagePullSecrets"] == [{"name": "registry"}, {"name": "pagemill-registry"}]
    assert pod["topologySpreadConstraints"][0]["labelSelector"] == {
        "matchLabels": {"pagemill.dev/uid": "uid-1", "pagemill.dev/step": "work"}
    }


def test_gpu_pool_asks_for_gpus_in_work_pods_only() -> None:
    parts = make_parts(workers={"pool": "gpu"})
    work, plan = jobs.wave_job(parts, 1, 10, 0), jobs.plan_job(parts)

    limits = pod_of(work)["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "2"
    assert pod_of(work)["nodeSelector"] == {"accelerator": "h200"}
    assert pod_of(work)["runtimeClassName"] == "nvidia"
    assert pod_of(work)["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert "nvidia.com/gpu" not in pod_of(plan)["containers"][0]["resources"]["limits"]
    assert "nodeSelector" not in pod_of(plan)
    assert env_of(plan)["PAGEMILL_POOL"] == "cpu"


def test_wishes_for_resources_replace_the_pools() -> None:
    manifest = jobs.wave_job(make_parts(workers={"resources": {"limits": {"memory": "3Gi"}}}), 1, 10, 1)

    resources = pod_of(manifest)["containers"][0]["resources"]
    assert resources["limits"] == {"cpu": "4", "memory": str(6 << 30)}
    assert resources["requests"]["memory"] == str(6 << 30)
    assert resources["requests"]["ephemeral-storage"] == "2Gi"


@pytest.mark.parametrize(
    ("rung", "want"),
    [(0, "8Gi"), (1, str(16 << 30)), (2, str(20 << 30)), (9, str(20 << 30))],
    ids=["first", "doubled", "capped", "stays-capped"],
)
def test_memory_climbs_its_ladder(rung: int, want: str) -> None:
    assert raised_memory("8Gi", rung, 20 << 30) == want


@pytest.mark.parametrize(
    ("wave", "rung", "want"),
    [(1, 0, "True"), (2, 1, "True"), (3, 2, None), (4, 1, None)],
    ids=["first", "second", "as much as the pool allows", "no wave follows"],
)
def test_wave_says_whether_a_later_one_has_more_memory(wave: int, rung: int, want: str | None) -> None:
    parts = make_parts(workers={"resources": {"limits": {"memory": "16Gi"}}})  # of a pool that allows 64Gi

    told = env_of(jobs.wave_job(parts, wave, 10, rung))

    assert told.get("PAGEMILL_CAN_HAVE_MORE_MEMORY") == want
    assert told.get("PAGEMILL_MEMORY_RUNG") == (str(rung) if rung else None)


def test_memory_over_the_pools_most_is_never_lowered() -> None:
    assert raised_memory("32Gi", 2, 20 << 30) == "32Gi"


def test_queued_job_is_made_suspended_with_its_labels() -> None:
    manifest = jobs.wave_job(make_parts(workers={"queue": "team", "priorityClass": "batch"}), 1, 10, 0)

    assert manifest["spec"]["suspend"] is True
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "batch"
    assert "priorityClassName" not in pod_of(manifest)


def test_failure_policy_follows_the_error_tree() -> None:
    rules = pod_failure_policy()["rules"]

    assert [rule["action"] for rule in rules] == ["Ignore", "Ignore", "FailJob"]
    assert rules[0]["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert rules[1]["onExitCodes"]["values"] == [143]
    assert rules[2]["onExitCodes"]["values"] == list(FAIL_JOB_EXIT_CODES)
    for error in (errors.InvalidSpecError, errors.AccessDeniedError, errors.SourceError, errors.IntegrityError):
        assert error.exit_code in FAIL_JOB_EXIT_CODES
    for code in (0, errors.EXIT_BUG, errors.StoreUnavailableError.exit_code, 137, errors.EXIT_DRAINED):
        assert code not in FAIL_JOB_EXIT_CODES


@pytest.mark.parametrize(
    "name",
    ["comics", "a" * 63, "books.2026.11", "x" * 27 + "." + "y" * 30, "trailing-" + "-" * 18 + "x"],
    ids=["short", "longest", "dots", "dot-at-the-cut", "dashes-at-the-cut"],
)
def test_names_of_pods_are_dns_labels(name: str) -> None:
    found = [
        names.plan_name(name, "uid", "run"),
        names.wave_name(name, "uid", "run", 999),
        names.finalize_name(name, "uid", "run", (1, "Complete")),
    ]

    for made in found:
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", f"{made}-99999")
        assert len(f"{made}-99999-abcde") <= 63
    assert len(set(found)) == 3


def test_names_differ_by_object_run_and_ownership() -> None:
    assert names.plan_name("a", "uid-1", "run") != names.plan_name("a", "uid-2", "run")
    assert names.plan_name("a", "uid-1", "run-1") != names.plan_name("a", "uid-1", "run-2")
    assert names.finalize_name("a", "u", "r", (1, "Stopped")) != names.finalize_name("a", "u", "r", (2, "Stopped"))
    assert names.finalize_name("a", "u", "r", (1, "Stopped")) != names.finalize_name("a", "u", "r", (1, "Complete"))


@pytest.mark.parametrize("message", ["\x00é€" * 3000, "a" * 9000, "😀" * 5000], ids=["control", "ascii", "wide"])
def test_last_words_fit_the_termination_log(message: str) -> None:
    body = LastWords(reason="Source", message=message, advice="y" * 500).to_bytes()

    assert MAX_LAST_WORDS_BYTES - 40 <= len(body) <= MAX_LAST_WORDS_BYTES
    found = LastWords.from_text(body.decode())
    assert found is not None
    assert message.startswith(found.message)


def test_last_words_of_somebody_else_are_none() -> None:
    assert LastWords.from_text("Traceback (most recent call last)") is None


def test_store_settings_take_the_jobs_word_before_the_operators() -> None:
    storage = make_parts(storage={"endpoint": "https://s3.example.org", "sse": "kms", "kmsKeyId": "k1"}).job.spec

    found = s3_settings(storage.effective_storage, endpoint="https://other", region="eu-1")

    assert (found.endpoint, found.region, found.sse) == ("https://s3.example.org", "eu-1", "aws:kms:k1")
