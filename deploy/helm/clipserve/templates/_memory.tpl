{{- /* MiB of a quantity such as 16Gi or 512Mi */ -}}
{{- define "clipserve.mebibytes" -}}
{{- if hasSuffix "Gi" . }}{{ mul (trimSuffix "Gi" . | int64) 1024 }}{{ else }}{{ trimSuffix "Mi" . | int64 }}{{ end }}
{{- end }}

{{- /*
MiB of /dev/shm that the server asks for before it starts (deploy/server/clipserve_container/memory.py):
64 MiB + (waiting + decoders) x (video + views x largest clip).
*/ -}}
{{- define "clipserve.sharedMemoryNeeded" -}}
{{- $shared := .Values.sharedMemory -}}
{{- $each := add $shared.videoMegabytes (mul $shared.views $shared.clipMegabytes) -}}
{{ add 64 (mul (add $shared.waiting (include "clipserve.decoders" .)) $each) }}
{{- end }}

{{- /* Videos that are decoded at a time: one for each core, and 3 x 6 by NVDEC on each GPU. */ -}}
{{- define "clipserve.decoders" -}}
{{ add .Values.resources.cpu (ternary 0 (mul 18 .Values.resources.gpus) (eq .Values.server.decoder "cpu")) }}
{{- end }}

{{- define "clipserve.sharedMemory" -}}
{{- if .Values.sharedMemory.size }}{{ include "clipserve.mebibytes" .Values.sharedMemory.size }}
{{- else }}{{ include "clipserve.sharedMemoryNeeded" . }}{{ end }}
{{- end }}
