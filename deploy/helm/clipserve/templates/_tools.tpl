{{- /* What runs beside the server: export Job, showcase, load test. */ -}}

{{- define "clipserve.tool.resources" -}}
requests: {{- toYaml .Values.resources.tools | nindent 2 }}
limits: {{- toYaml .Values.resources.tools | nindent 2 }}
{{- end }}

{{- /* How a client finds the server, and shows its certificate. */ -}}
{{- define "clipserve.tool.environment" -}}
- {name: CLIPSERVE_URL, value: "{{ include "clipserve.name" . }}:{{ .Values.service.port }}"}
{{- if ne .Values.tls.mode "off" }}
- {name: CLIPSERVE_ROOT_CERTIFICATES, value: /run/clipserve/client/ca.crt}
{{- if eq .Values.tls.mode "mutual" }}
- {name: CLIPSERVE_CLIENT_KEY, value: /run/clipserve/client/tls.key}
- {name: CLIPSERVE_CLIENT_CERTIFICATE, value: /run/clipserve/client/tls.crt}
{{- end }}
{{- end }}
{{- end }}

{{- define "clipserve.tool.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if ne .Values.tls.mode "off" }}
- {name: client, mountPath: /run/clipserve/client, readOnly: true}
{{- end }}
{{- if .Values.keys.adminSecret }}
- {name: admin-key, mountPath: /run/clipserve/keys, readOnly: true}
{{- end }}
{{- end }}

{{- define "clipserve.tool.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 2Gi}
{{- if ne .Values.tls.mode "off" }}
- name: client
  secret: {secretName: {{ .Values.tls.clientSecret | quote }}, defaultMode: 0440}
{{- end }}
{{- with .Values.keys.adminSecret }}
- name: admin-key
  secret: {secretName: {{ . | quote }}, defaultMode: 0440, items: [{key: admin_key, path: admin_key}]}
{{- end }}
{{- end }}
