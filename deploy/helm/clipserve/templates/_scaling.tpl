{{- /* Queries of Prometheus over all pods of this release, whose names end in the hash of a ReplicaSet and five letters. */ -}}
{{- define "clipserve.pods" -}}
namespace="{{ .Release.Namespace }}",pod=~"{{ include "clipserve.name" . }}{{ if .Values.kserve.enabled }}-predictor{{ end }}-[a-z0-9]+-[a-z0-9]{5}"
{{- end }}
{{- define "clipserve.query.decodeWaiting" -}}
sum(clipserve_decode_waiting{ {{- include "clipserve.pods" . -}} })
{{- end }}
{{- define "clipserve.query.networkWaiting" -}}
sum(nv_inference_pending_request_count{ {{- include "clipserve.pods" . }},model=~".*_net"})
{{- end }}

{{- /* A server needs a minute and more to be ready, so it is added at once and taken away late. */ -}}
{{- define "clipserve.scaling.behavior" -}}
scaleUp:
  stabilizationWindowSeconds: 0
  policies:
    - {type: Percent, value: 100, periodSeconds: 60}
    - {type: Pods, value: 2, periodSeconds: 60}
  selectPolicy: Max
scaleDown:
  stabilizationWindowSeconds: {{ .Values.autoscaling.scaleDownSeconds }}
  policies:
    - {type: Pods, value: 1, periodSeconds: 60}
{{- end }}
