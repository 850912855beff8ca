{{- /* What has the models ready before the server starts: a copy, or a look whether the export Job is done. */ -}}
{{- define "clipserve.modelCopy" -}}
{{- $repository := .Values.repository -}}
{{- if or (ne $repository.from "claim") .Values.export.enabled -}}
initContainers:
{{- if eq $repository.from "objectStore" }}
  - name: models
    image: {{ $repository.objectStore.image | quote }}
    args:
      - copy
      - {{ include "clipserve.remote" . | quote }}
      - /models
      - --config=/tmp/rclone.conf
      - --transfers=8
      # An empty folder of an ensemble's version counts, too.
      - --create-empty-src-dirs
      - --stats-one-line
      - --stats=10s
      - --stats-log-level=NOTICE
    env:
      - {name: HOME, value: /tmp}
    {{- with $repository.objectStore.secret }}
    envFrom:
      - secretRef: {name: {{ . | quote }}}
    {{- end }}
{{- else if eq $repository.from "initContainer" }}
  - name: models
    image: {{ $repository.initContainer.image | quote }}
    {{- with $repository.initContainer.command }}
    command: {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $repository.initContainer.args }}
    args: {{- toYaml . | nindent 6 }}
    {{- end }}
{{- else }}
  # Until the export Job is done; its log says what is missing.
  - name: models
    image: {{ include "clipserve.image" (list . "clipserve-server") | quote }}
    # The server's own start checks the rest: this container has no GPU, and would judge its memory by runs on a CPU.
    command:
      - sh
      - -c
      - |-
        until [ -e {{ include "clipserve.export.done" . }} ]; do
          echo "clipserve: the export Job is not done yet" >&2; sleep 5
        done
    env:
      - {name: NVIDIA_VISIBLE_DEVICES, value: void}
{{- end }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    securityContext: {{- include "clipserve.containerSecurity" . | nindent 6 }}
    resources:
      requests: {cpu: "1", memory: 1Gi}
      limits: {cpu: {{ .Values.resources.cpu | quote }}, memory: {{ .Values.resources.memory }}}
    volumeMounts:
      - {name: models, mountPath: /models, readOnly: {{ eq $repository.from "claim" }}}
      # Not the server's key and certificate: images of others do not see them.
      - {name: tmp, mountPath: /tmp}
{{- end }}
{{- end }}

{{- /* The object store in rclone's words: s3://bucket/path with {region: x} is :s3,env_auth=true,region="x":bucket/path */ -}}
{{- define "clipserve.remote" -}}
{{- $store := .Values.repository.objectStore -}}
{{- $parts := regexSplit "://" $store.url 2 -}}
{{- $kind := get (dict "s3" "s3" "gs" "gcs" "az" "azureblob") (index $parts 0) -}}
{{- $options := merge (deepCopy $store.options) (dict "env_auth" "true") -}}
{{- if eq $kind "s3" }}{{ $options = merge $options (dict "provider" "AWS") }}{{ end -}}
:{{ $kind }}{{ range $name, $value := $options }},{{ $name }}="{{ include "clipserve.text" $value | replace "\"" "\"\"" }}"{{ end }}:{{ index $parts 1 }}
{{- end }}

{{- /* The port of an address such as https://minio:9000 or minio:9000 */ -}}
{{- define "clipserve.port" -}}
{{- $address := ternary . (printf "https://%s" .) (contains "://" .) -}}
{{- regexFind ":[0-9]+$" (urlParse $address).host | trimPrefix ":" | default (ternary "80" "443" (hasPrefix "http:" $address)) }}
{{- end }}

{{- /* What the export Job runs. The options that follow are those of `clipserve export`. */ -}}
{{- define "clipserve.export.arguments" -}}
{{ concat .Values.export.models (list "--target" (ternary "gpu" "cpu" (gt (int .Values.resources.gpus) 0))) .Values.export.options | toJson }}
{{- end }}

{{- /* The file that says that this very export is done: servers wait for it, so that none takes models of the one before. */ -}}
{{- define "clipserve.export.done" -}}
{{- $what := printf "%s %s %s" (include "clipserve.image" (list . "clipserve-exporter")) (include "clipserve.export.arguments" .) (include "clipserve.text" .Values.repository.revision) -}}
/models/.exported-{{ $what | sha256sum | trunc 8 }}
{{- end }}

{{- define "clipserve.export.name" -}}
{{ include "clipserve.name" . }}-export-{{ include "clipserve.export.pod" . | sha256sum | trunc 8 }}
{{- end }}

{{- define "clipserve.export.pod" -}}
{{- include "clipserve.podBase" . }}
restartPolicy: OnFailure
containers:
  - name: export
    image: {{ include "clipserve.image" (list . "clipserve-exporter") | quote }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    command: [sh, -c, 'clipserve export --repository /models "$@" && touch {{ include "clipserve.export.done" . }}', export]
    args: {{- include "clipserve.export.arguments" . | fromJsonArray | toYaml | nindent 6 }}
    securityContext: {{- include "clipserve.containerSecurity" . | nindent 6 }}
    resources: {{- include "clipserve.tool.resources" . | nindent 6 }}
    volumeMounts:
      - {name: models, mountPath: /models}
      - {name: checkpoints, mountPath: /checkpoints}
      - {name: tmp, mountPath: /tmp}
volumes:
  - name: models
    persistentVolumeClaim: {claimName: {{ include "clipserve.claim" . | quote }}}
  - name: checkpoints
    emptyDir: {sizeLimit: 10Gi}
  - name: tmp
    emptyDir: {sizeLimit: 10Gi}
{{- end }}
