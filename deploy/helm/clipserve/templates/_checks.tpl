{{- /* Values that contradict each other: each message says which, and what to do. values.schema.json checks each alone. */ -}}
{{- define "clipserve.check" -}}
{{- $values := .Values -}}

{{- /* Coming and going */ -}}
{{- $drain := $values.drain -}}
{{- if gt (int $drain.seconds) (sub $drain.exitSeconds 6 | int) -}}
{{- fail (printf "drain.seconds is %v, but of the %v of drain.exitSeconds 6 are for the end itself: raise drain.exitSeconds to %v or more" $drain.seconds $drain.exitSeconds (add $drain.seconds 6)) -}}
{{- end -}}
{{- /* gRPC spreads the age of connections by a tenth. */ -}}
{{- $oldest := add (div (add (mul $values.connections.ageSeconds 11) 9) 10) 1 -}}
{{- if lt (int $drain.seconds) (int $oldest) -}}
{{- fail (printf "drain.seconds is %v, but connections live for up to %v s (connections.ageSeconds and a tenth), and clients on older ones would send requests to a server that ends: raise drain.seconds to %v, or lower connections.ageSeconds" $drain.seconds (sub $oldest 1) $oldest) -}}
{{- end -}}
{{- if and (eq (toString $values.rollout.maxSurge) "0") (eq (toString $values.rollout.maxUnavailable) "0") -}}
{{- fail "rollout.maxSurge and rollout.maxUnavailable are both 0, so no server could ever be replaced: raise one of them" -}}
{{- end -}}

{{- /* Room */ -}}
{{- $needed := include "clipserve.sharedMemoryNeeded" . | int -}}
{{- $shared := include "clipserve.sharedMemory" . | int -}}
{{- if lt $shared $needed -}}
{{- fail (printf "sharedMemory.size is %s, but %d Mi may be in use at once (64 + (%v waiting + %s decoders) x (%v + %v views x %v)), and the server does not start with less: raise it, leave it empty, or lower sharedMemory.waiting with max_waiting of the decode step" $values.sharedMemory.size $needed $values.sharedMemory.waiting (include "clipserve.decoders" .) $values.sharedMemory.videoMegabytes $values.sharedMemory.views $values.sharedMemory.clipMegabytes) -}}
{{- end -}}
{{- if lt (include "clipserve.mebibytes" $values.resources.memory | int) (add $shared 2048 | int) -}}
{{- fail (printf "resources.memory is %s, but /dev/shm counts in it with %d Mi, and the server itself needs 2048 Mi: raise it to %d Mi or more" $values.resources.memory $shared (add $shared 2048)) -}}
{{- end -}}
{{- if and (eq $values.server.decoder "nvdec") (eq (int $values.resources.gpus) 0) -}}
{{- fail "server.decoder is nvdec, the GPU's video decoder, but resources.gpus is 0: set server.decoder to auto or cpu, or give GPUs" -}}
{{- end -}}

{{- /* Models */ -}}
{{- $repository := $values.repository -}}
{{- if not $values.kserve.enabled -}}
{{- if and (eq $repository.from "objectStore") (not $repository.objectStore.url) -}}
{{- fail "repository.from is objectStore, but repository.objectStore.url is empty: s3://bucket/path, gs://bucket/path or az://container/path" -}}
{{- end -}}
{{- if and (eq $repository.from "initContainer") (not $repository.initContainer.image) -}}
{{- fail "repository.from is initContainer, but repository.initContainer.image is empty: the image that writes the models to /models" -}}
{{- end -}}
{{- if and (eq $repository.from "claim") (not $repository.claim.existing) (ne $repository.claim.accessMode "ReadWriteMany") (include "clipserve.several" .) -}}
{{- fail (printf "repository.claim.accessMode is %s, which one node can mount, but there may be several servers: set ReadWriteMany and a storage class that has it, or repository.from to objectStore" $repository.claim.accessMode) -}}
{{- end -}}
{{- end -}}
{{- if $values.export.enabled -}}
{{- if or $values.kserve.enabled (ne $repository.from "claim") -}}
{{- fail "export.enabled fills the claim, but the servers do not read their models from it: set repository.from to claim (and kserve.enabled to false), or export into the other place yourself" -}}
{{- end -}}
{{- if not $values.export.models -}}
{{- fail "export.enabled is true, but export.models is empty: such as [x3d_m, mvit_base_32x3]" -}}
{{- end -}}
{{- range $values.models -}}
{{- if and (not $repository.claim.existing) (not (has . $values.export.models)) -}}
{{- fail (printf "models has %s, but export.models does not, and the claim is new: add it there" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Autoscaling */ -}}
{{- $scaling := $values.autoscaling -}}
{{- if ne $scaling.kind "none" -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas is %v, more than autoscaling.maxReplicas, which is %v" $scaling.minReplicas $scaling.maxReplicas) -}}
{{- end -}}
{{- if and (eq $scaling.kind "keda") (not $scaling.prometheus) -}}
{{- fail "autoscaling.kind is keda, but autoscaling.prometheus is empty: the address that KEDA asks, such as http://prometheus-operated.monitoring:9090" -}}
{{- end -}}
{{- end -}}

{{- /* TLS, and what is in front of the pods */ -}}
{{- if and (ne $values.tls.mode "off") (not $values.tls.secret) -}}
{{- fail (printf "tls.mode is %s, but tls.secret is empty: the name of a Secret with tls.crt and tls.key%s" $values.tls.mode (ternary ", and ca.crt" "" (eq $values.tls.mode "mutual"))) -}}
{{- end -}}
{{- range $front := list "gateway" "ingress" -}}
{{- if (index $values $front).enabled -}}
{{- if ne $values.tls.mode "off" -}}
{{- fail (printf "%s.enabled with tls.mode %s: it ends TLS itself and speaks plain gRPC to the pods; set tls.mode to off and give it the certificate, or let clients use the Services" $front $values.tls.mode) -}}
{{- end -}}
{{- if $values.kserve.enabled -}}
{{- fail (printf "%s.enabled with kserve.enabled: KServe makes the routes itself" $front) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $values.gateway.enabled (not $values.gateway.parentRefs) -}}
{{- fail "gateway.enabled is true, but gateway.parentRefs is empty: the Gateway, such as [{name: public, namespace: gateways}]" -}}
{{- end -}}
{{- if and $values.ingress.enabled (not $values.ingress.host) -}}
{{- fail "ingress.enabled is true, but ingress.host is empty: an Ingress routes gRPC by the name of its host" -}}
{{- end -}}

{{- /* Beside the server */ -}}
{{- range $tool := list "showcase" "loadtest" -}}
{{- if (index $values $tool).enabled -}}
{{- if $values.kserve.enabled -}}
{{- fail (printf "%s.enabled with kserve.enabled: there is no Service %s of this chart to call" $tool (include "clipserve.name" $)) -}}
{{- end -}}
{{- if and (ne $values.tls.mode "off") (not $values.tls.clientSecret) -}}
{{- fail (printf "%s.enabled with tls.mode %s, but tls.clientSecret is empty: a Secret with ca.crt%s" $tool $values.tls.mode (ternary ", tls.crt and tls.key" "" (eq $values.tls.mode "mutual"))) -}}
{{- end -}}
{{- if $values.keys.apiSecret -}}
{{- fail (printf "%s.enabled with keys.apiSecret: it sends no api_key and would be refused" $tool) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $values.showcase.enabled (not $values.showcase.model) (not $values.keys.adminSecret) -}}
{{- fail "showcase.enabled needs showcase.model, the model that it starts with, or keys.adminSecret, with which it lists them" -}}
{{- end -}}
{{- if and $values.loadtest.enabled (not $values.keys.adminSecret) -}}
{{- fail "loadtest.enabled needs keys.adminSecret: perf_analyzer reads the server's statistics" -}}
{{- end -}}

{{- /* KServe */ -}}
{{- if $values.kserve.enabled -}}
{{- if not $values.kserve.storageUri -}}
{{- fail "kserve.enabled is true, but kserve.storageUri is empty: where KServe gets the models, such as s3://bucket/models or pvc://models" -}}
{{- end -}}
{{- if eq $scaling.kind "hpa" -}}
{{- fail "autoscaling.kind is hpa, but KServe makes the autoscaler: keda (kserve.deploymentMode Standard) or none" -}}
{{- end -}}
{{- if and (eq $values.kserve.deploymentMode "Knative") (eq $scaling.kind "keda") -}}
{{- fail "autoscaling.kind is keda, but in kserve.deploymentMode Knative its own autoscaler decides: none, or kserve.deploymentMode Standard" -}}
{{- end -}}
{{- if and (eq $values.kserve.deploymentMode "Standard") (ne (toString $values.kserve.canaryTrafficPercent) "") -}}
{{- fail "kserve.canaryTrafficPercent needs kserve.deploymentMode Knative, which splits the traffic" -}}
{{- end -}}
{{- end -}}
{{- end }}
