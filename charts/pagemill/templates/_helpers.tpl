{{/* The name in labels. */}}
{{- define "pagemill.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* The stem of names. */}}
{{- define "pagemill.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "pagemill.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The stem of names of objects of the whole cluster: no other release has it. */}}
{{- define "pagemill.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "pagemill.fullname" .) -}}
{{- end -}}

{{/* Labels by which the operator's pods are found; they never change during an upgrade. */}}
{{- define "pagemill.selectorLabels" -}}
app.kubernetes.io/name: {{ include "pagemill.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{/* The recommended labels of every object but those of recurring runs. */}}
{{- define "pagemill.labels" -}}
{{ include "pagemill.selectorLabels" . }}
app.kubernetes.io/part-of: pagemill
{{ include "pagemill.releaseLabels" . }}
{{- end -}}

{{- define "pagemill.releaseLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of a recurring run's objects: pagemill_core.recurring has the same. */}}
{{- define "pagemill.recurringLabels" -}}
app.kubernetes.io/name: pagemill
app.kubernetes.io/component: recurring
app.kubernetes.io/part-of: pagemill
{{- end -}}

{{/* An image by digest, else by tag. Takes a list: the image's values and the chart's version. */}}
{{- define "pagemill.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default (index . 1) $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "pagemill.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "pagemill.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "pagemill.workerServiceAccountName" -}}
{{- if .Values.worker.serviceAccount.create -}}
{{- default (printf "%s-worker" (include "pagemill.fullname" .)) .Values.worker.serviceAccount.name -}}
{{- else -}}
{{- .Values.worker.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The namespaces that are served, as a JSON list; empty for the whole cluster. */}}
{{- define "pagemill.namespaces" -}}
{{- if .Values.scope.clusterWide -}}
[]
{{- else -}}
{{- default (list .Release.Namespace) .Values.scope.namespaces | uniq | sortAlpha | toJson -}}
{{- end -}}
{{- end -}}

{{/* The namespaces with an account for recurring runs, as a JSON list. */}}
{{- define "pagemill.recurringNamespaces" -}}
{{- if .Values.recurring.enabled -}}
{{- default (include "pagemill.namespaces" . | fromJsonArray) .Values.recurring.namespaces | uniq | sortAlpha | toJson -}}
{{- else -}}
[]
{{- end -}}
{{- end -}}

{{/* What the operator does in a namespace that it serves, and nothing else. */}}
{{- define "pagemill.rules" -}}
- apiGroups: [pagemill.dev]
  resources: [ocrjobs, embeddingjobs]
  verbs: [get, list, watch, delete] # delete: ttlSecondsAfterFinished
- apiGroups: [pagemill.dev]
  resources: [ocrjobs/status, embeddingjobs/status]
  verbs: [patch]
{{- if .Values.rbac.ownerReferences }}
- apiGroups: [pagemill.dev]
  resources: [ocrjobs/finalizers, embeddingjobs/finalizers]
  verbs: [update]
{{- end }}
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete] # create: what server-side apply of a new Job needs
- apiGroups: [""]
  resources: [pods]
  verbs: [list] # why they do not start, how they ended
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- if .Values.kueue.enabled }}
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list, patch]
{{- end }}
{{- end -}}

{{/* The operator's settings file. */}}
{{- define "pagemill.settings" -}}
{{- $config := deepCopy .Values.config -}}
{{- if not $config.images.default -}}
{{- $image := include "pagemill.image" (list .Values.worker.image .Chart.AppVersion) -}}
{{- $config = set $config "images" (set $config.images "default" $image) -}}
{{- end -}}
{{- /* helm 4 drops null from the chart's values and helm 3 keeps it; to the operator both mean the default. */ -}}
{{- if kindIs "invalid" $config.limits.allowedPriorityClasses -}}
{{- $config = set $config "limits" (omit $config.limits "allowedPriorityClasses") -}}
{{- end -}}
{{- $endpoints := $config.allowedEndpoints -}}
{{- /* A job of the release's namespace could otherwise mount what the operator holds. */ -}}
{{- $reserved := $config.reservedSecrets -}}
{{- $stores := list -}}
{{- range $number, $store := .Values.stores -}}
{{- $entry := omit $store "secretName" "caSecretName" -}}
{{- if $store.secretName -}}
{{- $entry = set $entry "secretPath" (printf "/var/run/pagemill/stores/%d" $number) -}}
{{- $reserved = append $reserved $store.secretName -}}
{{- end -}}
{{- if $store.caSecretName -}}
{{- $entry = set $entry "caPath" (printf "/var/run/pagemill/authorities/%d/ca.crt" $number) -}}
{{- end -}}
{{- if $store.endpoint -}}
{{- $endpoints = append $endpoints $store.endpoint -}}
{{- end -}}
{{- $stores = append $stores $entry -}}
{{- end -}}
{{- if $stores -}}
{{- $config = set $config "stores" $stores -}}
{{- end -}}
{{- $config = set $config "allowedEndpoints" ($endpoints | uniq) -}}
{{- $config = set $config "reservedSecrets" ($reserved | uniq) -}}
{{- $readable := list -}}
{{- range .Values.readSecrets -}}
{{- $readable = append $readable .namespace -}}
{{- end -}}
{{- $config = set $config "readSecretsIn" ($readable | uniq | sortAlpha) -}}
{{- $config = set $config "workerServiceAccount" (include "pagemill.workerServiceAccountName" .) -}}
{{- toYaml $config -}}
{{- end -}}

{{/* The values that no schema can judge. */}}
{{- define "pagemill.check" -}}
{{- $served := include "pagemill.namespaces" . | fromJsonArray -}}
{{- if and .Values.scope.clusterWide .Values.scope.namespaces -}}
{{- fail "scope: give clusterWide or namespaces, not both" -}}
{{- end -}}
{{- if and .Values.recurring.jobs (not .Values.recurring.enabled) -}}
{{- fail "recurring.jobs need recurring.enabled: true, which makes the account that they run as" -}}
{{- end -}}
{{- if and .Values.recurring.enabled .Values.scope.clusterWide (not .Values.recurring.namespaces) -}}
{{- fail "recurring.namespaces: name the namespaces for recurring runs; a cluster-wide operator has no list of its own" -}}
{{- end -}}
{{- if and .Values.worker.serviceAccount.create .Values.scope.clusterWide -}}
{{- fail "worker.serviceAccount.create: a cluster-wide operator has no list of namespaces; create the accounts yourself and give their name" -}}
{{- end -}}
{{- range .Values.readSecrets -}}
{{- if and $served (not (has .namespace $served)) -}}
{{- fail (printf "readSecrets: namespace %s is not served (scope.namespaces)" .namespace) -}}
{{- end -}}
{{- end -}}
{{- $recurring := include "pagemill.recurringNamespaces" . | fromJsonArray -}}
{{- range .Values.recurring.jobs -}}
{{- $namespace := default $.Release.Namespace .namespace -}}
{{- if not (has $namespace $recurring) -}}
{{- fail (printf "recurring.jobs: %s is to run in namespace %s, which has no account for it (recurring.namespaces)" .name $namespace) -}}
{{- end -}}
{{- $spec := default dict .job.spec -}}
{{- if and (hasKey $spec "incremental") (not $spec.incremental) -}}
{{- fail (printf "recurring.jobs: %s: spec.incremental: false would do everything again at each tick; remove the field" .name) -}}
{{- end -}}
{{- if hasKey (default dict $spec.source) "retryOf" -}}
{{- fail (printf "recurring.jobs: %s: spec.source.retryOf is one run's failures; give a manifest or images instead" .name) -}}
{{- end -}}
{{- if eq (default "" (default dict $spec.output).files) "Single" -}}
{{- fail (printf "recurring.jobs: %s: spec.output.files: recurring runs add files; remove it, or set it to Partitioned" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
