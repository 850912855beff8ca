{{- /* Values that contradict each other: each message says which, and what to do. values.schema.json checks each alone. */ -}}
{{- define "clipserve.check" -}}
{{- $values := .Values -}}

{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" .Release.Name) -}}
{{- fail (printf "the release is called %q, but Services are named after it: small letters, digits and -, with a letter first" .Release.Name) -}}
{{- end -}}

{{- /* What the chart sets itself */ -}}
{{- range $labels := list "pod" "monitoring" -}}
{{- range $name, $_ := (index $values $labels).labels -}}
{{- if regexMatch "^(app\\.kubernetes\\.io|helm\\.sh)/" $name -}}
{{- fail (printf "%s.labels has %s, which the chart sets itself, and by which it finds its pods: leave it out" $labels $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if hasKey $values.pod.annotations "clipserve/models" -}}
{{- fail "pod.annotations has clipserve/models, which the chart sets: use repository.revision" -}}
{{- end -}}
{{- range $name, $_ := include "clipserve.server.settings" (list . "/models" 0) | fromJson -}}
{{- if hasKey $values.server.environment $name -}}
{{- fail (printf "server.environment has %s, which the chart sets from its other values: set those" $name) -}}
{{- end -}}
{{- end -}}
{{- if contains "--grpc-max-connection-age" $values.server.tritonOptions -}}
{{- fail "server.tritonOptions has --grpc-max-connection-age, which the chart sets: use connections.ageSeconds and connections.callSeconds" -}}
{{- end -}}

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
{{- if and (eq (toString $values.rollout.maxSurge | trimSuffix "%") "0") (eq (toString $values.rollout.maxUnavailable | trimSuffix "%") "0") -}}
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
{{- $fits := and (ge (int $values.replicas) (int $scaling.minReplicas)) (le (int $values.replicas) (int $scaling.maxReplicas)) -}}
{{- if and (ne (int $values.replicas) 1) (not $fits) -}}
{{- fail (printf "replicas is %v, but autoscaling.kind is %s, which keeps %v to %v servers: leave replicas out, or change autoscaling.minReplicas and autoscaling.maxReplicas" $values.replicas $scaling.kind $scaling.minReplicas $scaling.maxReplicas) -}}
{{- end -}}
{{- if ge (int $scaling.decodeWaiting) (int $values.sharedMemory.waiting) -}}
{{- fail (printf "autoscaling.decodeWaiting is %v, but a server never has more than sharedMemory.waiting, %v, and refuses requests from then on: lower it" $scaling.decodeWaiting $values.sharedMemory.waiting) -}}
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
{{- if not (or $values.kserve.enabled (include "clipserve.admitsOthers" .)) -}}
{{- $admit := "networkPolicy.clients admits only pods of this namespace: add" -}}
{{- $namespace := "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: NAME}}}" -}}
{{- range $values.gateway.parentRefs -}}
{{- if and $values.gateway.enabled (ne (.namespace | default $.Release.Namespace) $.Release.Namespace) -}}
{{- fail (printf "gateway.enabled is true, but %s %s, with the namespace of the Gateway's pods" $admit $namespace) -}}
{{- end -}}
{{- end -}}
{{- if $values.ingress.enabled -}}
{{- fail (printf "ingress.enabled is true, but %s %s, with the namespace of the controller's pods" $admit $namespace) -}}
{{- end -}}
{{- if ne $values.service.type "ClusterIP" -}}
{{- fail (printf "service.type is %s, but %s {ipBlock: {cidr: ...}}, with the addresses that connections come from" $values.service.type $admit) -}}
{{- end -}}
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
{{- if and $values.showcase.model $values.models (not (has $values.showcase.model $values.models)) -}}
{{- fail (printf "showcase.model is %s, but models has %s: add it there, or choose one of them" $values.showcase.model (join ", " $values.models)) -}}
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
{{- if and (eq $values.kserve.deploymentMode "Knative") (ne $values.tls.mode "off") -}}
{{- fail (printf "tls.mode is %s, but in kserve.deploymentMode Knative its proxy speaks plain gRPC to the server: set tls.mode to off, and have Knative or its gateway encrypt" $values.tls.mode) -}}
{{- end -}}
{{- if and (eq $values.kserve.deploymentMode "Knative") $values.monitoring.podMonitor -}}
{{- fail "monitoring.podMonitor asks for ports that pods of kserve.deploymentMode Knative do not have, as Knative allows one: set it to false" -}}
{{- end -}}
{{- if and (eq $values.kserve.deploymentMode "Standard") (ne (toString $values.kserve.canaryTrafficPercent) "") -}}
{{- fail "kserve.canaryTrafficPercent needs kserve.deploymentMode Knative, which splits the traffic" -}}
{{- end -}}
{{- end -}}
{{- end }}
