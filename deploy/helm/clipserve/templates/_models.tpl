{{- /* What has the models ready before the server starts: a copy, or a look whether the export Job is done. */ -}}
{{- define "clipserve.modelCopy" -}}
{{- $repository := .Values.repository -}}
{{- if or (ne $repository.from "claim") .Values.export.enabled -}}
initContainers:
{{- if eq $repository.from "objectStore" }}
  - name: models
    image: {{ $repository.objectStore.image }}
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
      - secretRef: {name: {{ . }}}
    {{- end }}
{{- else if eq $repository.from "initContainer" }}
  - name: models
    image: {{ $repository.initContainer.image }}
    {{- with $repository.initContainer.command }}
    command: {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $repository.initContainer.args }}
    args: {{- toYaml . | nindent 6 }}
    {{- end }}
{{- else }}
  # Until the export Job is done; its log says what is missing.
  - name: models
    image: {{ include "clipserve.image" (list . "clipserve-server") }}
    command:
      - sh
      - -c
      - until python3 -m clipserve_container.check; do sleep 5; done
    # It has no GPU; the server's own start looks for that.
    env: {{- include "clipserve.server.environment" (list . "/models" 0) | nindent 6 }}
{{- end }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    securityContext: {{- include "clipserve.containerSecurity" . | nindent 6 }}
    resources:
      requests: {cpu: "1", memory: 1Gi}
      limits: {cpu: {{ .Values.resources.cpu | quote }}, memory: {{ .Values.resources.memory }}}
    volumeMounts:
      - {name: models, mountPath: /models, readOnly: {{ eq $repository.from "claim" }}}
      {{- include "clipserve.server.mounts" . | nindent 6 }}
{{- end }}
{{- end }}

{{- /* The object store in rclone's words: s3://bucket/path with {region: x} is :s3,env_auth=true,region="x":bucket/path */ -}}
{{- define "clipserve.remote" -}}
{{- $store := .Values.repository.objectStore -}}
{{- $parts := regexSplit "://" $store.url 2 -}}
{{- $kind := get (dict "s3" "s3" "gs" "gcs" "az" "azureblob") (index $parts 0) -}}
{{- $options := merge (deepCopy $store.options) (dict "env_auth" "true") -}}
{{- if eq $kind "s3" }}{{ $options = merge $options (dict "provider" "AWS") }}{{ end -}}
:{{ $kind }}{{ range $name, $value := $options }},{{ $name }}="{{ $value | toString | replace "\"" "\"\"" }}"{{ end }}:{{ index $parts 1 }}
{{- end }}
