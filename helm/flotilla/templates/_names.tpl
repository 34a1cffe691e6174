{{- /* Names and labels. */ -}}
{{- define "flotilla.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "flotilla.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- /* Labels of every object. */ -}}
{{- define "flotilla.labels" -}}
{{ include "flotilla.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: flotilla
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Labels of a pod by its part. KubeRay sets app.kubernetes.io/name of Ray's pods itself, so parts have a label of
ours. Call: (dict "root" . "part" "gateway"). */ -}}
{{- define "flotilla.podLabels" -}}
flotilla.dev/release: {{ .root.Release.Name | quote }}
flotilla.dev/part: {{ .part }}
{{- if has .part (list "head" "gateway") }}
flotilla.dev/counts: "true"
{{- end }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "flotilla.partSelector" -}}
flotilla.dev/release: {{ .root.Release.Name | quote }}
flotilla.dev/part: {{ .part }}
{{- end }}

{{- define "flotilla.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "flotilla.pull" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "flotilla.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}{{ default (include "flotilla.fullname" .) .Values.serviceAccount.name }}
{{- else -}}{{ required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end -}}
{{- end }}

{{- define "flotilla.headServiceAccount" -}}
{{- if .Values.serviceAccount.create -}}{{ default (printf "%s-head" (include "flotilla.fullname" .)) .Values.serviceAccount.headName }}
{{- else -}}{{ required "serviceAccount.headName is needed when serviceAccount.create is false" .Values.serviceAccount.headName }}
{{- end -}}
{{- end }}

{{- define "flotilla.cacheClaim" -}}
{{- default (printf "%s-models" (include "flotilla.fullname" .)) .Values.modelCache.existingClaim -}}
{{- end }}

{{- /* The strategy that auto stands for in this cluster, in the words of RayService. */ -}}
{{- define "flotilla.upgradeType" -}}
{{- $asked := .Values.upgrade.strategy -}}
{{- $gateways := and (.Capabilities.APIVersions.Has "gateway.networking.k8s.io/v1") (ne .Values.upgrade.gatewayClassName "") -}}
{{- if or (eq $asked "Incremental") (and (eq $asked "auto") $gateways .Values.ray.autoscaler.enabled) -}}
{{- if not .Values.ray.autoscaler.enabled -}}{{ fail "upgrade.strategy Incremental needs ray.autoscaler.enabled: KubeRay moves capacity by it" }}{{- end -}}
{{- if eq .Values.upgrade.gatewayClassName "" -}}{{ fail "upgrade.strategy Incremental needs upgrade.gatewayClassName, the class of the Gateway that KubeRay makes" }}{{- end -}}
NewClusterWithIncrementalUpgrade
{{- else if or (eq $asked "NewCluster") (and (eq $asked "auto") .Values.upgrade.spareGpus) -}}
NewCluster
{{- else -}}
None
{{- end -}}
{{- end }}
