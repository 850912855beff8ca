{{- /*
The gRPC calls that clients make. What rules a Triton (RepositoryModelLoad, LogSettings, ...) is not for whoever comes
through a route: with several servers nobody knows which one was meant. deploy/scale/haproxy.cfg does the same.
*/ -}}
{{- define "clipserve.calls" -}}
[ModelInfer, ModelStreamInfer, ModelReady, ModelMetadata, ModelConfig, ServerReady, ServerLive, ServerMetadata]
{{- end }}
