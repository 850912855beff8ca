{{- define "clipserve.name" -}}
{{- if contains "clipserve" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-clipserve" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- /* What never changes of a part: list root part */ -}}
{{- define "clipserve.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: clipserve
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- /* Of an object: list root part. Pods have the selector's alone, so that another version of the chart restarts none. */ -}}
{{- define "clipserve.labels" -}}
{{- $root := index . 0 -}}
{{ include "clipserve.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end }}

{{- /* list root name-of-the-image */ -}}
{{- define "clipserve.image" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ index . 1 }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}
{{- end }}

{{- define "clipserve.claim" -}}
{{ .Values.repository.claim.existing | default (printf "%s-models" (include "clipserve.name" .)) }}
{{- end }}

{{- /*
A value as text. Helm reads the numbers of a file as floats, and a template writes 1000660000 as 1.00066e+09, which is no
user id.
*/ -}}
{{- define "clipserve.text" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{- /*
Whether networkPolicy.clients admits anybody but pods of the release's own namespace: "true" or nothing. Those who bring
requests from outside, such as a Gateway's pods, are in another one.
*/ -}}
{{- define "clipserve.admitsOthers" -}}
{{- if not .Values.networkPolicy.enabled }}true{{ end -}}
{{- range .Values.networkPolicy.clients }}{{ if or (hasKey . "namespaceSelector") (hasKey . "ipBlock") }}true{{ end }}{{ end -}}
{{- end }}

{{- /* Whether there may be more than one server: "true" or nothing. */ -}}
{{- define "clipserve.several" -}}
{{- if or (ne .Values.autoscaling.kind "none") (gt (int .Values.replicas) 1) }}true{{ end }}
{{- end }}
