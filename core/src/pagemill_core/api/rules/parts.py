"""Rules over the parts of a spec that both kinds share: sources, engine, storage, workers, limits.

Layer: `core.api`.
"""

from __future__ import annotations

import re

from pagemill_core.api.rules.rule import Rule, exactly_one

REMOTE_ENGINES = ("vlm", "qwen", "gemma", "deepseek")
"""Engines that call an OpenAI-compatible endpoint: `vlm`, and presets of it."""
BUILT_IN_STAGES = ("fetch", "decode", "recognise", "encode", "infer", "classify", "write")
# Domains whose labels and annotations give a pod an identity, a network, another place to run, a false owner, or
# containers and volumes that nobody here has asked for (service meshes and their kin inject by annotation). Container
# runtimes read keys without a domain: those with a dot in them.
_RESERVED_KEY = (
    "^(([a-z0-9-]+[.])*(pagemill[.]dev|kubernetes[.]io|([a-z]+-)?k8s[.]io|cncf[.]io|amazonaws[.]com|hashicorp[.]com"
    "|karpenter[.]sh|workload[.]identity|gke[.]io|azure[.]com|istio[.]io|linkerd[.]io|dapr[.]io|opentelemetry[.]io"
    "|datadoghq[.]com|projectcalico[.]org|cilium[.]io|ovn[.]org|crio[.]io|nvidia[.]com|getambassador[.]io)/.*"
    "|[^/]*[.][^/]*|aadpodidbinding|controller-uid|job-name)$"
)
# Turning an injection off, or asking for the mesh's own, gives nobody more than the mesh's owner does.
_HARMLESS_KEYS = ("sidecar.istio.io/inject", "linkerd.io/inject")
# What libraries and container runtimes obey: programs and libraries to load, proxies and authorities to trust, devices.
_RESERVED_ENV = (
    "^((AWS_|BOTO|HF_|KUBERNETES_|LD_|NVIDIA_|OPENAI_|OPENROUTER_|OPENSSL|PAGEMILL_|PYTHON|SSL_).*"
    "|.*(PATH|HOME|PROXY|proxy|BUNDLE|CONF|CONFIG|PREFIX|PRELOAD))$"
)
_RESERVED_MOUNT = "^/(app|bin|boot|dev|etc|lib|lib32|lib64|opt|proc|root|run|sbin|sys|tmp|usr|var)(/.*)?$"


def _listed(words: tuple[str, ...]) -> str:
    return "[" + ", ".join(f"'{word}'" for word in words) + "]"


def _no_reserved_key(labels: dict[str, str] | None) -> bool:
    return not any(re.fullmatch(_RESERVED_KEY, key) and key not in _HARMLESS_KEYS for key in labels or {})


def _no_reserved_key_cel(part: str) -> str:
    free = f"key in {_listed(_HARMLESS_KEYS)} || !key.matches('{_RESERVED_KEY}')"
    return f"!has(self.{part}) || self.{part}.all(key, {free})"


SOURCE_RULES = (
    exactly_one(
        "OcrSource",
        {"manifest": "manifest", "images": "images", "retryOf": "retry_of"},
        good=[{"manifest": {"uri": "s3://library/manifest.csv"}}, {"images": {"uri": "scans"}, "manifest": None}],
        bad=[{}, {"manifest": {"uri": "s3://library/manifest.csv"}, "images": {"uri": "s3://library/pages/"}}],
    ),
    exactly_one(
        "EmbeddingSource",
        {
            "books": "books",
            "images": "images",
            "manifest": "manifest",
            "dataset": "dataset",
            "texts": "texts",
            "tensors": "tensors",
            "ocrJob": "ocr_job",
            "embeddingJob": "embedding_job",
            "retryOf": "retry_of",
        },
        good=[{"dataset": {"uri": "s3://library/laion/"}}, {"ocrJob": {"name": "comics"}}],
        bad=[{}, {"dataset": {"uri": "s3://library/laion/"}, "texts": {"uri": "texts.parquet"}}],
    ),
    exactly_one(
        "OcrJobSource",
        {"name": "name", "uri": "uri"},
        good=[{"name": "comics", "groupBy": "directory"}, {"uri": "s3://library/out/comics"}],
        bad=[{"groupBy": "none"}, {"name": "comics", "uri": "s3://library/out/comics"}],
    ),
    Rule(
        scope="OcrJobSource",
        cel="!has(self.badPages) || (has(self.groupBy) && self.groupBy == 'directory')",
        holds=lambda source: source.bad_pages is None or source.group_by == "directory",
        message="badPages is about books: add groupBy: directory, or remove it",
        field=".badPages",
        good=[{"name": "comics", "groupBy": "directory", "badPages": "Drop"}, {"name": "comics"}],
        bad=[{"name": "comics", "badPages": "Drop"}, {"name": "comics", "groupBy": "none", "badPages": "Fail"}],
    ),
    exactly_one(
        "EmbeddingJobSource",
        {"name": "name", "uri": "uri"},
        good=[{"name": "books"}, {"uri": "s3://library/embeddings"}],
        bad=[{}, {"name": "books", "uri": "s3://library/embeddings"}],
    ),
    Rule(
        scope="ManifestSource",
        cel="!(has(self.pathPrefix) && has(self.bucket))",
        holds=lambda source: source.path_prefix is None or source.bucket is None,
        message="give pathPrefix for relative paths or bucket for bucket/key paths, not both",
        field=".bucket",
        good=[{"uri": "m.csv", "bucket": "library"}, {"uri": "m.csv", "pathPrefix": "s3://library/pages"}],
        bad=[{"uri": "m.csv", "bucket": "library", "pathPrefix": "s3://library/pages"}],
    ),
)

ENGINE_RULES = (
    Rule(
        scope="Engine",
        cel="!(has(self.apiKeySecretRef) || has(self.endpoint) || has(self.model))"
        f" || (has(self.name) && self.name in {_listed(REMOTE_ENGINES)})",
        holds=lambda engine: engine.is_remote or not (engine.api_key_secret_ref or engine.endpoint or engine.model),
        message="apiKeySecretRef, endpoint and model need a remote engine: name vlm, qwen, gemma or deepseek, or "
        "remove them",
        good=[{"name": "qwen", "apiKeySecretRef": {"name": "pagemill-vlm"}}, {"name": "tesseract"}, {}],
        bad=[{"name": "tesseract", "model": "best"}, {"apiKeySecretRef": {"name": "pagemill-vlm"}}],
    ),
    Rule(
        scope="Engine",
        cel="!has(self.name) || self.name != 'vlm' || has(self.model)",
        holds=lambda engine: engine.name != "vlm" or engine.model is not None,
        message="vlm needs model, the model's name at the endpoint; qwen, gemma and deepseek bring their own",
        field=".model",
        good=[{"name": "vlm", "model": "qwen/qwen-2-vl-72b-instruct"}, {"name": "gemma"}],
        bad=[{"name": "vlm"}],
    ),
)

STORAGE_RULES = (
    Rule(
        scope="Storage",
        cel="!has(self.kmsKeyId) || (has(self.sse) && self.sse == 'kms')",
        holds=lambda storage: storage.kms_key_id is None or storage.sse == "kms",
        message="kmsKeyId needs sse: kms; add it or remove kmsKeyId",
        field=".kmsKeyId",
        good=[{"sse": "kms", "kmsKeyId": "alias/library"}, {"sse": "AES256"}],
        bad=[{"kmsKeyId": "alias/library"}, {"sse": "AES256", "kmsKeyId": "alias/library"}],
    ),
    Rule(
        scope="Volume",
        cel=f"!self.mountPath.matches('{_RESERVED_MOUNT}')",
        holds=lambda volume: not re.fullmatch(_RESERVED_MOUNT, volume.mount_path),
        message="this path belongs to the worker image; mount the claim elsewhere, such as /scans or /mnt/scans",
        field=".mountPath",
        good=[{"claimName": "scans", "mountPath": "/scans"}, {"claimName": "scans", "mountPath": "/mnt/etc"}],
        bad=[{"claimName": "scans", "mountPath": "/etc"}, {"claimName": "scans", "mountPath": "/usr/lib/x"}],
    ),
)

WORKER_RULES = (
    Rule(
        scope="CountOrAuto",
        cel="type(self) == int ? self > 0 : self == 'auto'",
        holds=lambda value: value == "auto" if isinstance(value, str) else value > 0,
        message="write a whole number above 0, or auto",
        good=[1, 16, "auto"],
        bad=[0, -1, "many", "4"],
    ),
    Rule(
        scope="EnvVar",
        cel=f"!self.name.matches('{_RESERVED_ENV}')",
        holds=lambda variable: not re.fullmatch(_RESERVED_ENV, variable.name),
        message="this name steers the worker, its libraries, its network or its devices; use another one",
        field=".name",
        good=[{"name": "OMP_WAIT_POLICY", "value": "PASSIVE"}, {"name": "CUDA_VISIBLE_DEVICES", "value": "0"}],
        bad=[
            {"name": "LD_PRELOAD", "value": "/scans/x.so"},
            {"name": "AWS_ENDPOINT_URL", "value": "http://x"},
            {"name": "https_proxy", "value": "http://169.254.169.254"},
            {"name": "PATH", "value": "/scans/bin"},
            {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"},
        ],
    ),
    Rule(
        scope="PodTemplate",
        cel=_no_reserved_key_cel("labels"),
        holds=lambda template: _no_reserved_key(template.labels),
        message="labels of Pagemill, Kubernetes and cloud identities cannot be set; use keys of your own domain",
        field=".labels",
        good=[{"labels": {"team": "library", "example.org/cost": "42"}}, {}],
        bad=[
            {"labels": {"pagemill.dev/job": "x"}},
            {"labels": {"azure.workload.identity/use": "true"}},
            {"labels": {"kueue.x-k8s.io/queue-name": "x"}},
        ],
    ),
    Rule(
        scope="PodTemplate",
        cel=_no_reserved_key_cel("annotations"),
        holds=lambda template: _no_reserved_key(template.annotations),
        message="annotations of Pagemill, Kubernetes and cloud identities cannot be set; use keys of your own domain",
        field=".annotations",
        good=[{"annotations": {"sidecar.istio.io/inject": "false"}}],
        bad=[
            {"annotations": {"iam.amazonaws.com/role": "admin"}},
            {"annotations": {"k8s.v1.cni.cncf.io/networks": "x"}},
            {"annotations": {"sidecar.istio.io/userVolume": "[]"}},
            {"annotations": {"io.katacontainers.config.hypervisor.path": "/x"}},
        ],
    ),
    Rule(
        scope="Stage",
        cel=f"has(self.use) != (self.name in {_listed(BUILT_IN_STAGES)})",
        holds=lambda stage: (stage.use is not None) != (stage.name in BUILT_IN_STAGES),
        message="a stage of your own needs use and a new name; the built-in ones ("
        + ", ".join(BUILT_IN_STAGES)
        + ") are only sized, without use",
        field=".name",
        good=[{"name": "recognise", "processes": 2}, {"name": "redact", "use": "my_package.stages:Redact"}],
        bad=[{"name": "redact", "cpus": "1"}, {"name": "recognise", "use": "my_package.stages:Redact"}],
    ),
    Rule(
        scope="Stage",
        cel="has(self.use) || !(has(self.after) || has(self.options))",
        holds=lambda stage: stage.use is not None or not (stage.after or stage.options is not None),
        message="after and options are for stages of your own; add use or remove them",
        field=".use",
        good=[{"name": "redact", "use": "my_package.stages:Redact", "after": "recognise", "options": {"mode": "box"}}],
        bad=[{"name": "write", "after": "recognise"}, {"name": "write", "options": {"mode": "box"}}],
    ),
)

LIMIT_RULES = (
    Rule(
        scope="Sharding",
        cel="!(has(self.itemsPerShard) && has(self.targetSecondsPerShard))",
        holds=lambda sharding: sharding.items_per_shard is None or sharding.target_seconds_per_shard is None,
        message="give itemsPerShard or targetSecondsPerShard, not both",
        good=[{"itemsPerShard": 500}, {"targetSecondsPerShard": 120}, {}],
        bad=[{"itemsPerShard": 500, "targetSecondsPerShard": 120}],
    ),
    Rule(
        scope="Budget",
        cel="!self.maxCost.matches('^0([.]0*)?$')",
        holds=lambda budget: budget.max_cost_amount > 0,
        message="nothing can be done for nothing; give more than 0, or set suspend: true to stop the job",
        field=".maxCost",
        good=[{"maxCost": "25.00", "currency": "USD"}, {"maxCost": "0.01"}],
        bad=[{"maxCost": "0"}, {"maxCost": "0.00"}],
    ),
)

PART_RULES = (*SOURCE_RULES, *ENGINE_RULES, *STORAGE_RULES, *WORKER_RULES, *LIMIT_RULES)
