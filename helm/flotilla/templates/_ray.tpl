{{- /* YAML text as a value, or a failure that shows it. */ -}}
{{- define "flotilla.parsed" -}}
{{- $found := fromYaml .text -}}
{{- if hasKey $found "Error" -}}{{ fail (printf "%s is no YAML: %s\n%s" .what $found.Error .text) }}{{- end -}}
{{- toJson $found -}}
{{- end }}

{{- /* One Ray group as JSON: container, pod and group with their raw overrides.
Call: (dict "root" . "part" … "values" of the group "container" text "podSpec" text "group" dict). */ -}}
{{- define "flotilla.rayGroup" -}}
{{- $container := fromJson (include "flotilla.parsed" (dict "what" (printf "the container of %s" .part) "text" .container)) -}}
{{- $podSpec := fromJson (include "flotilla.parsed" (dict "what" (printf "the pod of %s" .part) "text" .podSpec)) -}}
{{- $_ := set $podSpec "containers" (list (mergeOverwrite $container (deepCopy (.values.container | default dict)))) -}}
{{- $podSpec = mergeOverwrite $podSpec (deepCopy (.values.podSpec | default dict)) -}}
{{- $metadata := dict "labels" (fromYaml (include "flotilla.podLabels" .)) -}}
{{- with .values.annotations }}{{ $_ := set $metadata "annotations" . }}{{ end -}}
{{- $group := mergeOverwrite .group (dict "template" (dict "metadata" $metadata "spec" $podSpec)) -}}
{{- toJson (mergeOverwrite $group (deepCopy (.values.group | default dict))) -}}
{{- end }}

{{- /* Parameters of `ray start` that all nodes share: every port of Ray lies below those of replicas. */ -}}
{{- define "flotilla.rayStartParams" -}}
object-store-memory: "200000000"
object-manager-port: "8076"
node-manager-port: "8077"
runtime-env-agent-port: "8078"
dashboard-agent-grpc-port: "8079"
min-worker-port: "10002"
max-worker-port: "19999"
{{- end }}

{{- define "flotilla.headGroup" -}}
{{- $container := include "flotilla.headContainer" . -}}
{{- $podSpec := include "flotilla.rayPodSpec" (dict "root" . "values" .Values.head "serviceAccount" (include "flotilla.headServiceAccount" .) "token" true) -}}
{{- $params := merge (dict "num-cpus" "0" "dashboard-host" "0.0.0.0") (fromYaml (include "flotilla.rayStartParams" .)) -}}
{{- include "flotilla.rayGroup" (dict "root" . "part" "head" "values" .Values.head "container" $container "podSpec" (printf "%s\n%s" $podSpec (include "flotilla.headPod" .)) "group" (dict "rayStartParams" $params)) -}}
{{- end }}

{{- /* The sidecar tells what Ray Serve's controller, which runs in the head, decided about replicas. */ -}}
{{- define "flotilla.headPod" -}}
shareProcessNamespace: true
initContainers:
{{ include "flotilla.workerInit" (dict "root" . "profile" "" "image" "") | trim | indent 2 }}
{{- end }}

{{- define "flotilla.headContainer" -}}
{{ include "flotilla.container" (dict "root" . "name" "ray-head") }}
env:
{{ include "flotilla.rayEnv" . | indent 2 }}
ports:
  - {name: gcs-server, containerPort: 6379}
  - {name: dashboard, containerPort: 8265}
  - {name: client, containerPort: 10001}
  - {name: serve, containerPort: {{ .Values.api.port }}}
{{ include "flotilla.preStop" (dict "root" . "part" "head") }}
resources:
{{ toYaml .Values.head.resources | indent 2 }}
volumeMounts:
{{ include "flotilla.rayMounts" . | indent 2 }}
{{- end }}

{{- define "flotilla.gatewayGroup" -}}
{{- $podSpec := include "flotilla.rayPodSpec" (dict "root" . "values" .Values.gateways "serviceAccount" (include "flotilla.serviceAccount" .) "token" false) -}}
{{- $more := include "flotilla.gatewayPod" . -}}
{{- $group := dict "groupName" "gateway" "minReplicas" (int .Values.gateways.replicas) "replicas" (int .Values.gateways.replicas) "maxReplicas" (int .Values.gateways.replicas) "rayStartParams" (fromYaml (include "flotilla.rayStartParams" .)) "resources" (dict "CPU" "1" "flotilla-gateway" "1") -}}
{{- include "flotilla.rayGroup" (dict "root" . "part" "gateway" "values" .Values.gateways "container" (include "flotilla.gatewayContainer" .) "podSpec" (printf "%s\n%s" $podSpec $more) "group" $group) -}}
{{- end }}

{{- define "flotilla.gatewayPod" -}}
shareProcessNamespace: true
initContainers:
{{ include "flotilla.workerInit" (dict "root" . "profile" "" "image" "") | trim | indent 2 }}
{{- if .Values.gateways.topologySpread }}
{{ include "flotilla.spread" (dict "root" . "part" "gateway" "group" "") }}
{{- end }}
{{- end }}

{{- /* Over nodes and zones, as far as there is room. Call: (dict "root" . "part" … "group" name or ""). */ -}}
{{- define "flotilla.spread" -}}
{{- $call := . -}}
topologySpreadConstraints:
{{- range (list "kubernetes.io/hostname" "topology.kubernetes.io/zone") }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
{{ include "flotilla.partSelector" $call | indent 8 }}
{{- with $call.group }}
        ray.io/group: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "flotilla.gatewayContainer" -}}
{{ include "flotilla.container" (dict "root" . "name" "ray-worker") }}
env:
{{ include "flotilla.rayEnv" . | indent 2 }}
ports:
  - {name: serve, containerPort: {{ .Values.api.port }}}
{{ include "flotilla.preStop" (dict "root" . "part" "gateway") }}
{{ include "flotilla.rayletProbes" . }}
startupProbe:
  exec:
    command:
      - bash
      - -c
      - >-
        wget -T 4 -q -O- http://localhost:{{ .Values.api.port }}/readyz ||
        [ $(( $(date +%s) - $(stat -c %Y /etc/hostname) )) -gt {{ .Values.gateways.startupPatienceSeconds }} ]
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: {{ add (div (int .Values.gateways.startupPatienceSeconds) 5) 120 }}
readinessProbe:
  httpGet: {path: /healthz, port: serve}
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 3
resources:
{{ toYaml .Values.gateways.resources | indent 2 }}
volumeMounts:
{{ include "flotilla.rayMounts" . | indent 2 }}
{{- end }}

{{- /* Call: (dict "root" . "name" … "values" of the group). */ -}}
{{- define "flotilla.workerGroup" -}}
{{- $v := .values -}}
{{- $podSpec := include "flotilla.rayPodSpec" (dict "root" .root "values" $v "serviceAccount" (include "flotilla.serviceAccount" .root) "token" .root.Values.nodeLabels.enabled) -}}
{{- $inits := printf "initContainers:\n%s" (include "flotilla.workerInit" (dict "root" .root "profile" $v.profile "image" $v.image) | trim | indent 2) -}}
{{- if and $v.topologySpread (not $v.numOfHosts) }}{{ $inits = printf "%s\n%s" $inits (include "flotilla.spread" (dict "root" .root "part" "model" "group" .name)) }}{{ end -}}
{{- $group := dict "groupName" .name "minReplicas" (int $v.minReplicas) "replicas" (int $v.minReplicas) "maxReplicas" (int $v.maxReplicas) "rayStartParams" (fromYaml (include "flotilla.rayStartParams" .root)) "resources" $v.rayResources -}}
{{- with $v.numOfHosts }}{{ $_ := set $group "numOfHosts" (int .) }}{{ end -}}
{{- with $v.idleTimeoutSeconds }}{{ $_ := set $group "idleTimeoutSeconds" (int .) }}{{ end -}}
{{- include "flotilla.rayGroup" (dict "root" .root "part" "model" "values" $v "container" (include "flotilla.workerContainer" .) "podSpec" (printf "%s\n%s" $podSpec $inits) "group" $group) -}}
{{- end }}

{{- define "flotilla.workerContainer" -}}
{{ include "flotilla.container" (dict "root" .root "name" "ray-worker" "image" .values.image) }}
env:
{{ include "flotilla.rayEnv" .root | indent 2 }}
{{ include "flotilla.preStop" (dict "root" .root "part" "model") }}
{{ include "flotilla.rayletProbes" .root }}
readinessProbe:
  exec:
    command: [bash, -c, "wget -T 4 -q -O- http://localhost:52365/api/local_raylet_healthz | grep success"]
  initialDelaySeconds: 5
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
resources:
{{ toYaml .values.resources | indent 2 }}
volumeMounts:
{{ include "flotilla.rayMounts" .root | indent 2 }}
{{- end }}
