{{- /* The server's pod, of a Deployment and of KServe. */ -}}

{{- /* As JSON, the variables that the chart sets: list root mount-path-of-the-models GPUs-of-the-container */ -}}
{{- define "clipserve.server.settings" -}}
{{- $root := index . 0 -}}
{{- $gpus := index . 2 | int -}}
{{- $values := $root.Values -}}
{{- $age := printf "--grpc-max-connection-age=%d --grpc-max-connection-age-grace=%d" (mul $values.connections.ageSeconds 1000) (mul $values.connections.callSeconds 1000) -}}
{{- $environment := dict
    "CLIPSERVE_REPOSITORY" (index . 1)
    "CLIPSERVE_GPU" (ternary "required" "none" (gt $gpus 0))
    "CLIPSERVE_MODELS" (join " " $values.models)
    "CLIPSERVE_DRIVER" $values.server.driver
    "CLIPSERVE_TLS" $values.tls.mode
    "CLIPSERVE_EXIT_SECONDS" $values.drain.exitSeconds
    "CLIPSERVE_DRAIN_SECONDS" $values.drain.seconds
    "CLIPSERVE_WATCH_SECONDS" $values.server.watchSeconds
    "CLIPSERVE_RESTART_AFTER" $values.server.restartAfter
    "CLIPSERVE_VIDEO_MEGABYTES" $values.sharedMemory.videoMegabytes
    "CLIPSERVE_VIEWS" $values.sharedMemory.views
    "CLIPSERVE_CACHE_MEGABYTES" $values.server.cacheMegabytes
    "CLIPSERVE_DECODER" $values.server.decoder
    "CLIPSERVE_TRACE_URL" $values.server.traceUrl
    "CLIPSERVE_TRACE_RATE" $values.server.traceRate
    "CLIPSERVE_LOG_VERBOSE" $values.server.logVerbose
    "CLIPSERVE_TRITON_OPTIONS" (trim (printf "%s %s" $age $values.server.tritonOptions))
    "NVIDIA_DRIVER_CAPABILITIES" "compute,utility,video" -}}
{{- /* The image says "all", which some nodes take as a request for all their GPUs. */ -}}
{{- if eq $gpus 0 }}{{ $_ := set $environment "NVIDIA_VISIBLE_DEVICES" "void" }}{{ end -}}
{{ toJson $environment }}
{{- end }}

{{- /* The same with the user's own, as a list of Kubernetes */ -}}
{{- define "clipserve.server.environment" -}}
{{- $own := (index . 0).Values.server.environment -}}
{{- range $name, $value := merge (include "clipserve.server.settings" . | fromJson) $own }}
- name: {{ $name | quote }}
  value: {{ include "clipserve.text" $value | quote }}
{{- end }}
{{- end }}

{{- define "clipserve.server.resources" -}}
{{- $resources := dict "cpu" (.Values.resources.cpu | toString) "memory" .Values.resources.memory -}}
{{- if gt (int .Values.resources.gpus) 0 }}{{ $_ := set $resources .Values.resources.gpuResource (.Values.resources.gpus | toString) }}{{ end -}}
requests: {{- toYaml $resources | nindent 2 }}
limits: {{- toYaml $resources | nindent 2 }}
{{- end }}

{{- /* Every model is asked for by name at /ready: Triton's own /v2/health/ready stays 200 when the process of one died. */ -}}
{{- define "clipserve.server.probes" -}}
startupProbe:
  httpGet: {path: /ready, port: ready}
  periodSeconds: 5
  timeoutSeconds: 10
  failureThreshold: {{ div (add .Values.server.startSeconds 4) 5 }}
readinessProbe:
  httpGet: {path: /ready, port: ready}
  periodSeconds: 5
  timeoutSeconds: 10
  failureThreshold: 2
{{- if gt (int .Values.server.restartAfter) 0 }}
# The server ends itself first, after server.restartAfter looks. This is for one that cannot even do that, so it gets no
# time for a drain.
livenessProbe:
  httpGet: {path: /ready, port: ready}
  periodSeconds: {{ int .Values.server.watchSeconds }}
  timeoutSeconds: 10
  failureThreshold: {{ add .Values.server.restartAfter 6 }}
  terminationGracePeriodSeconds: 10
{{- end }}
{{- end }}

{{- /* Then SIGTERM: the server says "not ready", takes requests for drain.seconds, answers those under way, and ends. */ -}}
{{- define "clipserve.server.lifecycle" -}}
{{- with .Values.drain.preStopSeconds }}
lifecycle:
  preStop:
    sleep: {seconds: {{ . }}}
{{- end }}
{{- end }}

{{- define "clipserve.server.ports" -}}
- {name: grpc, containerPort: 8001, protocol: TCP}
- {name: metrics, containerPort: 8002, protocol: TCP}
- {name: ready, containerPort: 8003, protocol: TCP}
{{- end }}

{{- /* Volumes but the models */ -}}
{{- define "clipserve.server.volumes" -}}
- name: shared-memory
  emptyDir: {medium: Memory, sizeLimit: {{ include "clipserve.sharedMemory" . }}Mi}
- name: tmp
  emptyDir: {medium: Memory, sizeLimit: 256Mi}
- name: cache
  emptyDir: {sizeLimit: 10Gi}
{{- if include "clipserve.server.secrets" . }}
- name: secrets
  projected:
    defaultMode: 0440
    sources: {{- include "clipserve.server.secrets" . | trim | nindent 6 }}
{{- end }}
{{- end }}

{{- define "clipserve.server.secrets" -}}
{{- if ne .Values.tls.mode "off" }}
- secret:
    name: {{ .Values.tls.secret | quote }}
    items:
      - {key: tls.crt, path: server.pem}
      - {key: tls.key, path: server.key}
{{- if eq .Values.tls.mode "mutual" }}
      - {key: ca.crt, path: ca.pem}
{{- end }}
{{- end }}
{{- with .Values.keys.adminSecret }}
- secret:
    name: {{ . | quote }}
    items: [{key: admin_key, path: admin_key}]
{{- end }}
{{- with .Values.keys.apiSecret }}
- secret:
    name: {{ . | quote }}
    items: [{key: api_key, path: api_key}]
{{- end }}
{{- end }}

{{- /* Mounts but the models */ -}}
{{- define "clipserve.server.mounts" -}}
- {name: shared-memory, mountPath: /dev/shm}
- {name: tmp, mountPath: /tmp}
- {name: cache, mountPath: /cache}
{{- if include "clipserve.server.secrets" . }}
- {name: secrets, mountPath: /run/clipserve/secrets, readOnly: true}
{{- end }}
{{- end }}

{{- /* How a pod ends */ -}}
{{- define "clipserve.server.ending" -}}
terminationGracePeriodSeconds: {{ add .Values.drain.preStopSeconds .Values.drain.exitSeconds }}
# The pod's first process waits for those whose parent died, as `init` of compose does.
shareProcessNamespace: true
{{- end }}

{{- /* Where a pod goes; each line starts anew, because there may be none. */ -}}
{{- define "clipserve.server.placement" -}}
{{- with .Values.placement.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with .Values.placement.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.placement.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.placement.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.placement.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
