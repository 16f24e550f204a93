"""What a plain user who may only create OcrJobs does not gain by any field of one, on a real server and operator.

Three lines of defence, each tried: the server refuses what the schema does not know or a rule forbids; the operator
refuses what this cluster's settings do not allow, before any pod; and what is accepted becomes pods that hold nothing
but what the settings say.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from testcluster.api import Answer, KubeApi, object_path
from testcluster.pytest_plugin import Kubernetes

from pagemill_core.api.v1alpha1 import API_VERSION, JobStatus
from pagemill_core.testing.seaweed import SeaweedServer
from pagemill_operator.testing.played_stage import PlayedStage

pytestmark = [pytest.mark.cluster, pytest.mark.s3]

Json = Any

JOBS = ["ocrjobs", "embeddingjobs"]
CREATE_ONLY = [{"apiGroups": ["pagemill.dev"], "resources": JOBS, "verbs": ["create"]}]
METADATA_SERVICE = "http://169.254.169.254"
OWN_LABEL_KEY = "example.org/team"


@pytest.fixture(scope="module")
def stage(kubernetes: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlayedStage]:
    """One operator for all tests; no pod ever runs."""
    namespace = "pagemill-user-limits"
    api = kubernetes.api
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": f"{namespace}-"}}
    name = api.call("POST", "/api/v1/namespaces", body)["metadata"]["name"]
    with SeaweedServer() as server:
        found = PlayedStage(api, kubernetes.kubeconfig, name, server, tmp_path_factory.mktemp("stage"))
        found.configure(
            outputs={"*": [f"s3://{found.bucket}/{{namespace}}/"], "finance": [f"s3://{found.bucket}/finance/"]},
            reservedSecrets=["pagemill-operator-store"],
            claimNamePattern="scans*",
            labelKeyPatterns=["example.org/*"],
            limits={"maxParallelism": 50},
        )
        found.start()
        yield found
        found.kill()
    api.call("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="module")
def user(stage: PlayedStage, kubernetes: Kubernetes) -> KubeApi:
    """Somebody who may create jobs, and nothing else."""
    path = stage.write_kubeconfig(stage.folder / "jane", "jane", CREATE_ONLY)
    token = yaml.safe_load(path.read_text())["users"][0]["user"]["token"]
    return kubernetes.api.with_token(token)


def made(stage: PlayedStage, **spec: Json) -> Json:
    job = stage.job(**spec)
    job["metadata"] = {"generateName": "try-"}
    if "output" not in spec:
        job["spec"]["output"] = {"uri": f"s3://{stage.bucket}/{stage.namespace}/{time.monotonic_ns()}"}
    return job


def create(user: KubeApi, stage: PlayedStage, job: Json, validation: str = "Strict") -> Answer:
    place = object_path(API_VERSION, "ocrjobs", stage.namespace)
    return user.ask("POST", place, job, fieldValidation=validation)


def template(**parts: Json) -> Json:
    return {"workers": {"template": parts}}


def variable(name: str) -> Json:
    return template(env=[{"name": name, "value": "x"}])


# -- the schema and its rules -----------------------------------------------------------------------------------------

UNKNOWN_FIELDS: dict[str, tuple[Json, str]] = {
    "hostPath": (template(volumes=[{"name": "x", "hostPath": {"path": "/"}}]), "template.volumes"),
    "hostPath-claim": ({"storage": {"volumes": [{"claimName": "a", "mountPath": "/a", "hostPath": "/"}]}}, "hostPath"),
    "service-account": (template(serviceAccountName="admin"), "template.serviceAccountName"),
    "token": (template(automountServiceAccountToken=True), "template.automountServiceAccountToken"),
    "image": (template(image="evil/image"), "template.image"),
    "engine-image": ({"engine": {"name": "rapidocr", "image": "evil/image"}}, "engine.image"),
    "containers": (template(containers=[{"name": "x"}]), "template.containers"),
    "init-containers": (template(initContainers=[{"name": "x"}]), "template.initContainers"),
    "command": (template(command=["sh"]), "template.command"),
    "security-context": (template(securityContext={"runAsUser": 0}), "template.securityContext"),
    "host-network": (template(hostNetwork=True), "template.hostNetwork"),
    "host-pid": (template(hostPID=True), "template.hostPID"),
    "node-name": (template(nodeName="control-plane"), "template.nodeName"),
    "runtime-class": (template(runtimeClassName="none"), "template.runtimeClassName"),
    "host-aliases": (template(hostAliases=[{"ip": "169.254.169.254"}]), "template.hostAliases"),
    "env-from": (template(envFrom=[{"secretRef": {"name": "x"}}]), "template.envFrom"),
    "env-from-secret": (
        template(env=[{"name": "X", "value": "x", "valueFrom": {"secretKeyRef": {"name": "x", "key": "x"}}}]),
        "valueFrom",
    ),
    "resource-claims": ({"workers": {"resources": {"claims": [{"name": "gpu"}]}}}, "resources.claims"),
    "other-namespace": ({"storage": {"secretRef": {"name": "pagemill-a", "namespace": "finance"}}}, "namespace"),
}


@pytest.mark.parametrize("name", UNKNOWN_FIELDS)
def test_field_that_would_reach_beyond_the_job_does_not_exist(user: KubeApi, stage: PlayedStage, name: str) -> None:
    spec, want = UNKNOWN_FIELDS[name]

    answer = create(user, stage, made(stage, **spec))

    assert answer.status == 400, answer.message
    assert 'strict decoding error: unknown field "spec.' in answer.message
    assert want in answer.message


RESERVED = "cannot be set; use keys of your own domain"
STEERS = "this name steers the worker, its libraries, its network or its devices"
RULED_OUT: dict[str, tuple[Json, str]] = {
    "label-ours": (template(labels={"pagemill.dev/uid": "another"}), RESERVED),
    "label-job-controller": (template(labels={"batch.kubernetes.io/controller-uid": "x"}), RESERVED),
    "label-job-controller-old": (template(labels={"controller-uid": "x"}), RESERVED),
    "label-chart": (template(labels={"app.kubernetes.io/name": "pagemill"}), RESERVED),
    "label-queue": (template(labels={"kueue.x-k8s.io/queue-name": "other-team"}), RESERVED),
    "label-azure-identity": (template(labels={"azure.workload.identity/use": "true"}), RESERVED),
    "label-aad-identity": (template(labels={"aadpodidbinding": "admin"}), RESERVED),
    "label-psp": (template(labels={"pod-security.kubernetes.io/enforce": "privileged"}), RESERVED),
    "annotation-aws-role": (template(annotations={"iam.amazonaws.com/role": "admin"}), RESERVED),
    "annotation-vault": (template(annotations={"vault.hashicorp.com/agent-inject": "true"}), RESERVED),
    "annotation-seccomp": (template(annotations={"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}), RESERVED),
    "annotation-apparmor": (
        template(annotations={"container.apparmor.security.beta.kubernetes.io/worker": "unconfined"}),
        RESERVED,
    ),
    "annotation-network": (template(annotations={"k8s.v1.cni.cncf.io/networks": "storage"}), RESERVED),
    "annotation-address": (template(annotations={"cni.projectcalico.org/ipAddrs": '["10.0.0.1"]'}), RESERVED),
    "annotation-mesh-volume": (template(annotations={"sidecar.istio.io/userVolume": "[]"}), RESERVED),
    "annotation-mesh-image": (template(annotations={"sidecar.istio.io/proxyImage": "evil/image"}), RESERVED),
    "annotation-injector": (template(annotations={"instrumentation.opentelemetry.io/inject-python": "x"}), RESERVED),
    "annotation-runtime": (template(annotations={"io.katacontainers.config.hypervisor.path": "/x"}), RESERVED),
    "annotation-devices": (template(annotations={"io.kubernetes.cri-o.Devices": "/dev/sda"}), RESERVED),
    "annotation-ours": (template(annotations={"pagemill.dev/job-json": "{}"}), RESERVED),
    "env-task": (variable("PAGEMILL_OWNER"), STEERS),
    "env-library": (variable("LD_PRELOAD"), STEERS),
    "env-python": (variable("PYTHONPATH"), STEERS),
    "env-path": (variable("PATH"), STEERS),
    "env-home": (variable("HOME"), STEERS),
    "env-aws": (variable("AWS_ENDPOINT_URL"), STEERS),
    "env-kubernetes": (variable("KUBERNETES_SERVICE_HOST"), STEERS),
    "env-proxy": (variable("HTTPS_PROXY"), STEERS),
    "env-proxy-small": (variable("http_proxy"), STEERS),
    "env-authorities": (variable("SSL_CERT_FILE"), STEERS),
    "env-authorities-requests": (variable("REQUESTS_CA_BUNDLE"), STEERS),
    "env-openssl": (variable("OPENSSL_CONF"), STEERS),
    "env-gpus": (variable("NVIDIA_VISIBLE_DEVICES"), STEERS),
    "env-hub": (variable("HF_ENDPOINT"), STEERS),
    "env-key": (variable("OPENROUTER_API_KEY"), STEERS),
    "mount-over-image": (
        {"storage": {"volumes": [{"claimName": "scans", "mountPath": "/opt/pagemill"}]}},
        "this path belongs to the worker image",
    ),
    "mount-over-secrets": (
        {"storage": {"volumes": [{"claimName": "scans", "mountPath": "/var/run/pagemill/store"}]}},
        "this path belongs to the worker image",
    ),
    "mount-up": ({"storage": {"volumes": [{"claimName": "scans", "mountPath": "/scans/../etc"}]}}, "mountPath"),
    "endpoint-user": ({"storage": {"endpoint": "http://store@169.254.169.254"}}, "storage.endpoint"),
    "endpoint-scheme": ({"storage": {"endpoint": "file:///etc"}}, "storage.endpoint"),
    "output-scheme": ({"output": {"uri": "http://store/out"}}, "output.uri"),
    "source-scheme": ({"source": {"manifest": {"uri": "http://169.254.169.254/latest"}}}, "source.manifest.uri"),
    "region": ({"storage": {"region": "x.evil.com/"}}, "storage.region"),
    "key-of-local-engine": (
        {"engine": {"name": "tesseract", "apiKeySecretRef": {"name": "pagemill-a"}}},
        "apiKeySecretRef, endpoint and model need a remote engine",
    ),
    "priority": ({"workers": {"priorityClass": 1000}}, "priorityClass"),
}


@pytest.mark.parametrize("name", RULED_OUT)
def test_value_that_would_reach_beyond_the_job_is_refused_with_a_reason(
    user: KubeApi, stage: PlayedStage, name: str
) -> None:
    spec, want = RULED_OUT[name]

    answer = create(user, stage, made(stage, **spec))

    assert answer.status in (400, 422), answer.message
    assert want in answer.message


# -- the operator's settings ------------------------------------------------------------------------------------------

REMOTE = {"name": "vlm", "model": "m"}
REFUSED: dict[str, tuple[Json, str, str]] = {
    "endpoint-link-local": ({"storage": {"endpoint": METADATA_SERVICE}}, "EndpointNotAllowed", "storage.endpoint"),
    "endpoint-link-local-6": ({"storage": {"endpoint": "http://[fd00:ec2::254]"}}, "EndpointNotAllowed", "fd00:ec2"),
    "endpoint-cluster": (
        {"storage": {"endpoint": "https://kubernetes.default.svc"}},
        "EndpointNotAllowed",
        "'https://kubernetes.default.svc' is not allowed; allowed are:",
    ),
    "endpoint-etcd": ({"storage": {"endpoint": "http://127.0.0.1:2379"}}, "EndpointNotAllowed", "127.0.0.1:2379"),
    "endpoint-decimal": ({"storage": {"endpoint": "http://2852039166/"}}, "EndpointNotAllowed", "2852039166"),
    "engine-link-local": (
        {"engine": {**REMOTE, "endpoint": f"{METADATA_SERVICE}/latest"}},
        "EndpointNotAllowed",
        "engine.endpoint",
    ),
    "engine-cluster": (
        {"engine": {**REMOTE, "endpoint": "http://payments.finance.svc:8080/v1"}},
        "EndpointNotAllowed",
        "payments.finance.svc",
    ),
    "secret-of-others": ({"storage": {"secretRef": {"name": "payroll"}}}, "SecretNotAllowed", "'pagemill-*'"),
    "secret-token": (
        {"storage": {"secretRef": {"name": "default-token-x7"}}},
        "SecretNotAllowed",
        "storage.secretRef names 'default-token-x7'",
    ),
    "secret-of-the-operator": (
        {"storage": {"secretRef": {"name": "pagemill-operator-store"}}},
        "SecretNotAllowed",
        "which is the operator's own",
    ),
    "secret-authorities": ({"storage": {"caSecretRef": {"name": "payroll"}}}, "SecretNotAllowed", "caSecretRef"),
    "secret-key": (
        {"engine": {**REMOTE, "apiKeySecretRef": {"name": "payroll"}}},
        "SecretNotAllowed",
        "engine.apiKeySecretRef",
    ),
    "secret-registry": (
        template(imagePullSecrets=[{"name": "payroll"}]),
        "SecretNotAllowed",
        "workers.template.imagePullSecrets[payroll]",
    ),
    "output-of-others": ({"output": {"uri": "s3://BUCKET/finance/out"}}, "OutputNotAllowed", "it may write to: s3://"),
    "output-up": ({"output": {"uri": "s3://BUCKET/NAMESPACE-other/out"}}, "OutputNotAllowed", "it may write to"),
    "output-bucket": ({"output": {"uri": "s3://backups/out"}}, "OutputNotAllowed", "s3://backups/out"),
    "output-node": ({"output": {"uri": "file:///var/lib/kubelet"}}, "OutputUnreachable", "is no object store"),
    "pool": ({"workers": {"pool": "control-plane"}}, "PoolUnknown", "pools are: cpu"),
    "parallelism": ({"workers": {"parallelism": 51}}, "InvalidSpec", "here at most 50 is allowed"),
    "priority": ({"workers": {"priorityClass": "system-node-critical"}}, "InvalidSpec", "is not allowed to jobs here"),
    "devices": (
        {"workers": {"resources": {"limits": {"nvidia.com/gpu": "8"}}}},
        "InvalidSpec",
        "pool cpu does not offer nvidia.com/gpu",
    ),
    "claim-of-others": (
        {"storage": {"volumes": [{"claimName": "database", "mountPath": "/scans"}]}},
        "InvalidSpec",
        "names of claims for jobs match 'scans*'",
    ),
    "label-of-a-service": (template(labels={"app": "payments"}), "InvalidSpec", "'app' is not allowed to jobs here"),
}


def filled(value: Json, stage: PlayedStage) -> Json:
    text = json.dumps(value).replace("BUCKET", stage.bucket).replace("NAMESPACE", stage.namespace)
    return json.loads(text)


def accepted(stage: PlayedStage, name: str) -> tuple[str, str, str]:
    """What the operator says of acceptance, once it does: status, reason, message."""
    place = object_path(API_VERSION, "ocrjobs", stage.namespace, name)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        status = JobStatus.model_validate(stage.api.call("GET", place).get("status") or {})
        condition = status.condition("Accepted")
        if condition is not None:
            return condition.status, condition.reason, condition.message
        time.sleep(0.05)
    raise AssertionError(f"nobody looked at {name}: {stage.log()[-3:]}")


@pytest.mark.parametrize("name", REFUSED)
def test_job_beyond_the_settings_is_not_accepted_and_gets_no_pod(user: KubeApi, stage: PlayedStage, name: str) -> None:
    spec, want_reason, want_words = REFUSED[name]
    answer = create(user, stage, made(stage, **filled(spec, stage)))
    assert answer.status == 201, answer.message

    status, reason, message = accepted(stage, answer.body["metadata"]["name"])

    assert (status, reason) == ("False", want_reason)
    assert want_words in message
    owned = [job for job in stage.jobs() if owner_of(job) == answer.body["metadata"]["uid"]]
    assert owned == []


def owner_of(job: Json) -> str:
    return str(job["metadata"]["ownerReferences"][0]["uid"])


# -- what becomes of a job that is accepted ---------------------------------------------------------------------------


def test_pods_of_an_accepted_job_hold_nothing_that_its_user_chose_freely(user: KubeApi, stage: PlayedStage) -> None:
    """Everything that is allowed, and everything that is not under the laxest validation, in one job."""
    job = made(
        stage,
        storage={
            "endpoint": stage.endpoint,
            "secretRef": {"name": "pagemill-library"},
            "volumes": [{"claimName": "scans-1", "mountPath": "/scans", "hostPath": {"path": "/"}}],
        },
        workers={
            "template": {
                "labels": {OWN_LABEL_KEY: "library"},
                "annotations": {"example.org/note": "x", "sidecar.istio.io/inject": "false"},
                "env": [{"name": "OMP_NUM_THREADS", "value": "$(PAGEMILL_OWNER)"}],
                "imagePullSecrets": [{"name": "pagemill-registry"}],
                "tolerations": [{"operator": "Exists"}],
                "serviceAccountName": "admin",
                "hostNetwork": True,
                "volumes": [{"name": "root", "hostPath": {"path": "/"}}],
                "containers": [{"name": "evil", "image": "evil/image"}],
                "securityContext": {"runAsUser": 0},
            },
        },
    )
    answer = create(user, stage, job, validation="Ignore")
    assert answer.status == 201, answer.message
    uid = answer.body["metadata"]["uid"]

    deadline = time.monotonic() + 30
    while not (found := [one for one in stage.jobs() if owner_of(one) == uid]):
        assert time.monotonic() < deadline, stage.log()[-3:]
        time.sleep(0.1)

    pod = found[0]["spec"]["template"]
    spec = pod["spec"]
    (worker,) = spec["containers"]
    assert worker["image"] == "worker@sha256:1"
    assert worker["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert spec["automountServiceAccountToken"] is False
    assert not spec.keys() & {"serviceAccountName", "hostNetwork", "hostPID", "hostIPC", "initContainers", "nodeName"}
    kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
    assert kinds == {"downwardAPI", "emptyDir", "secret", "persistentVolumeClaim"}
    assert [volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume] == ["pagemill-library"]
    (given,) = [variable for variable in worker["env"] if variable["name"] == "OMP_NUM_THREADS"]
    assert given["value"] == "$$(PAGEMILL_OWNER)"  # stays text: Kubernetes does not put another variable there
    assert not any("secretKeyRef" in variable.get("valueFrom", {}) for variable in worker["env"])
    assert pod["metadata"]["labels"]["pagemill.dev/uid"] == uid
    assert pod["metadata"]["labels"][OWN_LABEL_KEY] == "library"


def test_status_given_by_a_user_counts_for_nothing(user: KubeApi, stage: PlayedStage) -> None:
    job = made(stage)
    job["status"] = {"phase": "Succeeded", "plannedAt": "2026-01-01T00:00:00Z", "image": "evil/image"}
    answer = create(user, stage, job)
    assert answer.status == 201, answer.message
    name = answer.body["metadata"]["name"]

    status, _, _ = accepted(stage, name)
    place = object_path(API_VERSION, "ocrjobs", stage.namespace, name, "status")
    written = user.ask("PATCH", place, {"status": {"image": "evil/image"}}, content_type="application/merge-patch+json")

    assert status == "True"
    assert "status" not in answer.body
    assert written.status == 403


@pytest.mark.parametrize("plural", ["pods", "secrets", "serviceaccounts", "events"])
def test_user_sees_nothing_else(user: KubeApi, stage: PlayedStage, plural: str) -> None:
    answer = user.ask("GET", object_path("v1", plural, stage.namespace))

    assert answer.status == 403
