{{- define "worker-drain.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* 52 characters, so that the longest suffix, "-view" or "-metrics", and a Pod's own still fit into 63. */ -}}
{{- define "worker-drain.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- $name := include "worker-drain.name" . }}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* Cluster-wide objects of two releases with one name, in two namespaces, must not be the same. */ -}}
{{- define "worker-drain.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "worker-drain.fullname" .) }}
{{- end }}

{{- define "worker-drain.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "worker-drain.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is needed where serviceAccount.create is false: the name of an existing ServiceAccount" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "worker-drain.metricsName" -}}
{{- include "worker-drain.fullname" . }}-metrics
{{- end }}

{{- define "worker-drain.selectorLabels" -}}
app.kubernetes.io/name: {{ include "worker-drain.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "worker-drain.labels" -}}
{{- $own := dict
  "app.kubernetes.io/version" .Chart.AppVersion
  "app.kubernetes.io/managed-by" .Release.Service
  "app.kubernetes.io/part-of" "worker-drain"
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") }}
{{- merge (include "worker-drain.selectorLabels" . | fromYaml) $own .Values.commonLabels | toYaml }}
{{- end }}

{{- define "worker-drain.image" -}}
{{- $registry := default .Values.image.registry .Values.global.imageRegistry }}
{{- with .Values.image }}
{{- $repository := required "image.repository is needed: build the image, push it to a registry that your cluster can pull from, and name it, such as --set image.repository=registry.example.com/worker-drain" .repository }}
{{- with $registry }}{{ trimSuffix "/" . }}/{{ end }}
{{- $repository }}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{- /* The global ones first. Each is a name, or an object with a name. */ -}}
{{- define "worker-drain.imagePullSecrets" -}}
{{- $secrets := list }}
{{- range concat (default list .Values.global.imagePullSecrets) .Values.imagePullSecrets }}
{{- $name := . }}
{{- if kindIs "map" . }}
{{- $name = .name }}
{{- end }}
{{- $secrets = append $secrets (dict "name" $name) }}
{{- end }}
{{- with $secrets | uniq }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* The permissions in the watched namespaces: the same rules in a ClusterRole, or in a Role for each namespace. */ -}}
{{- define "worker-drain.rules" -}}
- apiGroups: [workerdrain.io]
  resources: [workerdrains]
  # patch: to add and remove its finalizer.
  verbs: [get, list, watch, patch]
- apiGroups: [workerdrain.io]
  resources: [workerdrains/status]
  verbs: [patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
# Pages of memory for services of several hundred tasks; read by name, never listed.
- apiGroups: [apps]
  resources: [controllerrevisions]
  verbs: [create, get, delete]
{{- if .Values.secrets.enabled }}
- apiGroups: [""]
  resources: [secrets]
{{- with .Values.secrets.names }}
  resourceNames: {{ toJson . }}
{{- end }}
  # Neither list nor watch: they would return all Secrets. A WorkerDrain names the one that it needs.
  verbs: [get]
{{- end }}
{{- end }}

{{- /* Checks that the schema cannot express clearly. */ -}}
{{- define "worker-drain.check" -}}
{{- if and (gt (int .Values.replicas) 1) (not .Values.leaderElection.enabled) }}
{{- fail (printf "replicas is %d, so leaderElection.enabled must be true: without it, replicas must be 0 or 1" (int .Values.replicas)) }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.service.enabled) }}
{{- fail "metrics.serviceMonitor.enabled needs metrics.service.enabled: a ServiceMonitor finds Pods through their Service" }}
{{- end }}
{{- if .Values.metrics.prometheusRule.enabled }}
{{- if and (not .Values.metrics.service.enabled) (not .Values.metrics.prometheusRule.selector) }}
{{- fail "metrics.prometheusRule.enabled without metrics.service.enabled needs metrics.prometheusRule.selector: which time series are those of worker-drain" }}
{{- end }}
{{- end }}
{{- end }}

{{- /* A duration as Prometheus writes it (12h, 1h30m, 45s), in seconds. */ -}}
{{- define "worker-drain.seconds" -}}
{{- $seconds := 0 }}
{{- $units := dict "d" 86400 "h" 3600 "m" 60 "s" 1 }}
{{- range regexFindAll "[0-9]+[dhms]" . -1 }}
{{- $unit := trunc -1 . }}
{{- $seconds = add $seconds (mul (trimSuffix $unit . | int64) (get $units $unit)) }}
{{- end }}
{{- $seconds }}
{{- end }}
