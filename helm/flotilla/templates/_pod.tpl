{{- /* What all of Flotilla's own processes need in their environment. */ -}}
{{- define "flotilla.env" -}}
- name: HOME
  value: /home/flotilla
- name: FLOTILLA_FLEET
  value: /etc/flotilla/fleet.yaml
- name: FLOTILLA_STATE_DIR
  value: /var/lib/flotilla
{{- include "flotilla.databaseEnv" . }}
{{- include "flotilla.secretEnv" (dict "root" . "key" "keyPepper" "value" .Values.secrets.keyPepper "env" "FLOTILLA_KEY_PEPPER" "required" true) }}
{{- include "flotilla.secretEnv" (dict "root" . "key" "replicaSecret" "value" .Values.secrets.replicaSecret "env" "FLOTILLA_REPLICA_SECRET" "required" true) }}
{{- include "flotilla.secretEnv" (dict "root" . "key" "quotaUrl" "value" .Values.secrets.quotaUrl "env" "FLOTILLA_QUOTA_URL" "required" false) }}
{{- end }}

{{- define "flotilla.cacheEnv" -}}
- name: HF_HOME
  value: {{ .Values.modelCache.mountPath }}/hub
{{- if .Values.modelCache.offline }}
- name: HF_HUB_OFFLINE
  value: "1"
- name: TRANSFORMERS_OFFLINE
  value: "1"
{{- end }}
{{- with .Values.modelCache.hubEndpoint }}
- name: HF_ENDPOINT
  value: {{ . }}
{{- end }}
{{- include "flotilla.secretEnv" (dict "root" . "key" "hubToken" "value" .Values.secrets.hubToken "env" "HF_TOKEN" "required" false) }}
{{- end }}

{{- /* Where engines keep what they compile (serving/engines/caches.py): on the node where pods write weights to a folder of
it, else in the pod. Not in a volume of all pods: it is made for one kind of processor. */ -}}
{{- define "flotilla.compiledEnv" -}}
{{- $root := . }}
{{- $onNode := and (eq .Values.modelCache.type "node") .Values.models.hub (not .Values.modelCache.offline) }}
{{- $at := $onNode | ternary (printf "%s/compiled" .Values.modelCache.mountPath) "/var/lib/flotilla/cache" }}
{{- $given := list }}
{{- range .Values.ray.extraEnv }}{{ $given = append $given .name }}{{ end }}
{{- range $name, $folder := dict "TORCHINDUCTOR_CACHE_DIR" "inductor" "TRITON_CACHE_DIR" "triton" "VLLM_CACHE_ROOT" "vllm" }}
{{- if not (or (hasKey $root.Values.ray.env $name) (has $name $given)) }}
- name: {{ $name }}
  value: {{ $at }}/{{ $folder }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The environment of Ray's processes: the same on head and workers. */ -}}
{{- define "flotilla.rayEnv" -}}
{{ include "flotilla.env" . }}
- name: FLOTILLA_REPLICA_HOST
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
- name: FLOTILLA_REPLICA_PORTS
  value: {{ printf "%d-%d" (int (index .Values.networkPolicy.replicaPorts 0)) (int (index .Values.networkPolicy.replicaPorts 1)) | quote }}
{{- if .Values.nodeLabels.enabled }}
- name: FLOTILLA_NODE_LABELS
  value: "@/var/lib/flotilla/node-labels.json"
{{- end }}
{{ include "flotilla.cacheEnv" . }}
{{- include "flotilla.compiledEnv" . }}
{{- range $name, $value := .Values.ray.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- with .Values.ray.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "flotilla.mounts" -}}
- {name: fleet, mountPath: /etc/flotilla, readOnly: true}
- {name: state, mountPath: /var/lib/flotilla}
- {name: home, mountPath: /home/flotilla}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "flotilla.volumes" -}}
- name: fleet
  configMap:
    name: {{ include "flotilla.fullname" . }}-fleet
- {name: state, emptyDir: {}}
- {name: home, emptyDir: {}}
- {name: tmp, emptyDir: {}}
{{- end }}

{{- define "flotilla.cacheVolume" -}}
- name: models
{{- if eq .Values.modelCache.type "pvc" }}
  persistentVolumeClaim:
    claimName: {{ include "flotilla.cacheClaim" . }}
{{- else if eq .Values.modelCache.type "node" }}
  hostPath:
    path: {{ .Values.modelCache.hostPath }}
    type: DirectoryOrCreate
{{- else }}
  emptyDir: {}
{{- end }}
{{- end }}

{{- define "flotilla.rayMounts" -}}
{{ include "flotilla.mounts" . }}
- {name: counters, mountPath: /run/flotilla}
- {name: models, mountPath: {{ .Values.modelCache.mountPath }}}
{{- end }}

{{- define "flotilla.rayVolumes" -}}
{{ include "flotilla.volumes" . }}
- {name: counters, emptyDir: {}}
{{ include "flotilla.cacheVolume" . }}
{{- end }}

{{- /* A container of the main image. Call: (dict "root" . "name" … ). */ -}}
{{- define "flotilla.container" -}}
name: {{ .name }}
image: {{ .image | default (include "flotilla.image" .root) }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
{{ toYaml .root.Values.security.container | indent 2 }}
{{- end }}

{{- /* Init containers of a worker pod, the sidecar among them: it begins before Ray and ends after it.
Call: (dict "root" . "profile" "h100" or "" "image" …). */ -}}
{{- define "flotilla.workerInit" -}}
{{- $root := .root }}
{{- if and .profile $root.Values.nodeLabels.enabled }}
- {{ include "flotilla.container" (dict "root" $root "name" "node-labels" "image" .image) | nindent 2 | trim }}
  command: [python, -m, serving.kubernetes.nodelabels, --out, /var/lib/flotilla/node-labels.json]
  env:
    - name: NODE_NAME
      valueFrom:
        fieldRef:
          fieldPath: spec.nodeName
  resources:
    requests: {cpu: 100m, memory: 256Mi}
    limits: {cpu: 500m, memory: 256Mi}
  volumeMounts:
{{ include "flotilla.mounts" $root | indent 4 }}
{{- end }}
{{- if and .profile (or $root.Values.models.small (and $root.Values.models.hub (ne $root.Values.modelCache.type "none") (not $root.Values.modelCache.offline))) }}
- {{ include "flotilla.container" (dict "root" $root "name" "weights" "image" .image) | nindent 2 | trim }}
  command: [python, -m, serving.clusterweights, /etc/flotilla/fleet.yaml, --checkpoints, /var/lib/flotilla/checkpoints, --accelerator, {{ .profile | quote }}
{{- if and $root.Values.models.hub (ne $root.Values.modelCache.type "none") (not $root.Values.modelCache.offline) }}, --cache, {{ $root.Values.modelCache.mountPath }}/hub{{ end }}]
  env:
    - {name: HOME, value: /home/flotilla}
{{ include "flotilla.cacheEnv" $root | indent 4 }}
  resources:
    requests: {cpu: 500m, memory: 2Gi}
    limits: {cpu: "2", memory: 4Gi}
  volumeMounts:
{{ include "flotilla.rayMounts" $root | indent 4 }}
{{- end }}
- {{ include "flotilla.container" (dict "root" $root "name" "sidecar" "image" .image) | nindent 2 | trim }}
  restartPolicy: Always
  command: [python, -m, serving.sidecar, --port, {{ $root.Values.metrics.port | quote }}, --fleet, /etc/flotilla/fleet.yaml
{{- if and .profile $root.Values.nodeLabels.enabled }}, --node, $(NODE_NAME){{ end }}]
  env:
{{- if and .profile $root.Values.nodeLabels.enabled }}
    - name: NODE_NAME
      valueFrom:
        fieldRef:
          fieldPath: spec.nodeName
{{- end }}
{{ include "flotilla.rayEnv" $root | indent 4 }}
  ports:
    - {name: flotilla, containerPort: {{ $root.Values.metrics.port }}}
  startupProbe:
    httpGet: {path: /healthz, port: flotilla}
    periodSeconds: 2
    failureThreshold: 60
  livenessProbe:
    httpGet: {path: /healthz, port: flotilla}
    periodSeconds: 20
    timeoutSeconds: 5
    failureThreshold: 6
  resources:
{{ toYaml $root.Values.sidecar.resources | indent 4 }}
  volumeMounts:
{{ include "flotilla.rayMounts" $root | indent 4 }}
{{- end }}

{{- /* Spec of a Ray pod but for its containers. Call: (dict "root" . "values" of the group "serviceAccount" …). */ -}}
{{- define "flotilla.rayPodSpec" -}}
{{- $root := .root -}}
serviceAccountName: {{ .serviceAccount }}
automountServiceAccountToken: {{ .token }}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ add $root.Values.drainSeconds 30 }}
securityContext:
{{ toYaml $root.Values.security.pod | indent 2 }}
{{- include "flotilla.pull" $root }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .values.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
{{ toYaml . | indent 2 }}
{{- end }}
volumes:
{{ include "flotilla.rayVolumes" $root | indent 2 }}
{{- end }}

{{- define "flotilla.preStop" -}}
lifecycle:
  preStop:
    exec:
      command: [python, -m, serving.poddrain, {{ .part }}, --for, {{ .root.Values.drainSeconds | quote }}]
{{- end }}

{{- /* KubeRay's own probes of a Ray process, for pods whose readiness is ours to say. */ -}}
{{- define "flotilla.rayletProbes" -}}
livenessProbe:
  exec:
    command: [bash, -c, "wget -T 4 -q -O- http://localhost:52365/api/local_raylet_healthz | grep success"]
  initialDelaySeconds: 30
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 120
{{- end }}
