{{- define "headwater.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "headwater.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "headwater.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "headwater.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Labels by which pods are selected: they never change. */}}
{{- define "headwater.selector" -}}
app.kubernetes.io/name: {{ include "headwater.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "headwater.labels" -}}
{{ include "headwater.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "headwater.secretName" -}}
{{- .Values.secret.existingName | default (include "headwater.fullname" .) }}
{{- end }}

{{/* Image of a part: (dict "image" .. "root" $) */}}
{{- define "headwater.image" -}}
{{- if .image.digest }}
{{- printf "%s@%s" .image.repository .image.digest }}
{{- else }}
{{- printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion) }}
{{- end }}
{{- end }}

{{/* The pools of workers that are enabled, each complete, by name; as YAML. */}}
{{- define "headwater.pools" -}}
{{- $pools := dict }}
{{- range $name, $pool := .Values.workers }}
{{- $whole := mergeOverwrite (deepCopy $.Values.workerDefaults) (deepCopy ($pool | default dict)) }}
{{- if $whole.enabled }}{{ $_ := set $pools $name $whole }}{{ end }}
{{- end }}
{{- toYaml $pools }}
{{- end }}

{{/* Hints of a backfill at once: with n workers, window - n * concurrency are in the queue, and the autoscaler wants
that divided by bulkLength; so this window keeps the largest number of workers. */}}
{{- define "headwater.bulkWindow" -}}
{{- $window := .Values.keda.bulkWindow | int }}
{{- if not $window }}
{{- range $name, $pool := include "headwater.pools" . | fromYaml }}
{{- $each := add (int $pool.concurrency) (int $.Values.keda.bulkLength) }}
{{- $window = add $window (mul (int $pool.autoscaling.maxReplicas) $each) | int }}
{{- end }}
{{- end }}
{{- $window }}
{{- end }}

{{- define "headwater.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: {{ .Values.runAsUser }}
runAsGroup: {{ .Values.runAsGroup }}
{{- with .Values.supplementalGroups }}
supplementalGroups: {{ toJson . }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "headwater.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What the pods of all parts have in common: (dict "part" .. "pool" (of a worker) "root" $) */}}
{{- define "headwater.podMetadata" -}}
labels:
  {{- include "headwater.labels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .part }}
  {{- with .pool }}
  headwater/pool: {{ . }}
  {{- end }}
annotations:
  checksum/settings: {{ include (print .root.Template.BasePath "/settings.yaml") .root | sha256sum }}
  checksum/secret: {{ include (print .root.Template.BasePath "/secret.yaml") .root | sha256sum }}
  {{- with .root.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "headwater.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* From the Secret; what is not required need not be there: (dict "names" (list ..) "required" (list ..) "root" $) */}}
{{- define "headwater.secretEnvironment" -}}
{{- range .names }}
- name: {{ . }}
  valueFrom:
    secretKeyRef:
      name: {{ include "headwater.secretName" $.root }}
      key: {{ . }}
      optional: {{ not (has . $.required) }}
{{- end }}
{{- end }}

{{/* What all parts are told: (dict "state" DIRECTORY "root" $) */}}
{{- define "headwater.environment" -}}
- {name: HEADWATER_STATE_DIR, value: {{ .state }}}
- {name: HEADWATER_METRICS_HOST, value: "0.0.0.0"}
- {name: HEADWATER_METRICS_PORT, value: {{ .root.Values.metrics.port | quote }}}
{{- end }}

{{- define "headwater.documentsMount" -}}
- name: documents
  mountPath: /documents
  readOnly: true
  {{- with .Values.documents.subPath }}
  subPath: {{ . }}
  {{- end }}
{{- end }}

{{- define "headwater.documentsVolume" -}}
- name: documents
  {{- toYaml .Values.documents.volume | nindent 2 }}
{{- end }}

{{/* Models by path, if there are any. */}}
{{- define "headwater.modelsMount" -}}
{{- if .Values.models.volume }}
- {name: models, mountPath: /models, readOnly: true}
{{- end }}
{{- end }}

{{- define "headwater.modelsVolume" -}}
{{- with .Values.models.volume }}
- name: models
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Asks the API of this pod: (dict "path" "readyz") */}}
{{- define "headwater.asks" -}}
command:
  - python
  - -c
  - import urllib.request as r; r.urlopen('http://127.0.0.1:6780/{{ .path }}', timeout=4)
{{- end }}
