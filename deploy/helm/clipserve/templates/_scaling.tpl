{{- /* Queries of Prometheus over all pods of this release. */ -}}
{{- define "clipserve.query.decodeWaiting" -}}
sum(clipserve_decode_waiting{namespace="{{ .Release.Namespace }}",pod=~"{{ include "clipserve.name" . }}-.*"})
{{- end }}
{{- define "clipserve.query.networkWaiting" -}}
sum(nv_inference_pending_request_count{namespace="{{ .Release.Namespace }}",pod=~"{{ include "clipserve.name" . }}-.*",model=~".*_net"})
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
