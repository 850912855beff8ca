{{- /* Of a container: no root, no capability, no new privilege, nothing to write but its volumes. */ -}}
{{- define "clipserve.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* Of a pod; fsGroup lets its user read the volumes and Secrets. */ -}}
{{- define "clipserve.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ int64 .Values.pod.user }}
runAsGroup: {{ int64 .Values.pod.user }}
fsGroup: {{ int64 .Values.pod.user }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- /* Of every pod. Service links would set CLIPSERVE_PORT and others, which mean something else here. */ -}}
{{- define "clipserve.podIdentity" -}}
serviceAccountName: {{ include "clipserve.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- range . }}
  - name: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "clipserve.podBase" -}}
{{ include "clipserve.podIdentity" . }}
securityContext: {{- include "clipserve.podSecurity" . | nindent 2 }}
{{- end }}
