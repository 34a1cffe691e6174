{{- /* Parts of the NetworkPolicies. */ -}}
{{- define "flotilla.dns" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end -}}
{{- define "flotilla.toDatabase" -}}
{{- if .Values.postgresql.enabled }}
- to:
    - podSelector:
        matchLabels: {app.kubernetes.io/name: postgresql, app.kubernetes.io/instance: {{ .Release.Name | quote }}}
  ports:
    - {port: 5432}
{{- end }}
{{- with .Values.networkPolicy.database }}
- to:
{{ toYaml . | indent 4 }}
  ports:
    - {port: {{ $.Values.networkPolicy.databasePort }}}
{{- end }}
{{- end -}}
{{- define "flotilla.rayPods" -}}
podSelector:
  matchLabels: {flotilla.dev/release: {{ .Release.Name | quote }}}
  matchExpressions:
    - {key: flotilla.dev/part, operator: In, values: [head, gateway, model]}
{{- end -}}
{{- define "flotilla.rayPorts" -}}
- {port: 1024, endPort: {{ sub (int (index .Values.networkPolicy.replicaPorts 0)) 1 }}}
- {port: {{ add (int (index .Values.networkPolicy.replicaPorts 1)) 1 }}, endPort: 65535}
{{- end -}}
{{- define "flotilla.toCollector" -}}
{{- with .Values.networkPolicy.collector }}
- to:
{{ toYaml . | indent 4 }}
{{- end }}
{{- end -}}

{{- define "flotilla.toWeb" -}}
{{- if .Values.gateways.fetches }}
- to:
{{ toYaml .Values.networkPolicy.web | indent 4 }}
  ports:
    - {port: 443}
{{- end }}
{{- end -}}

{{- define "flotilla.toHub" -}}
{{- if and .Values.models.hub (not .Values.modelCache.offline) }}
- to:
{{ toYaml .Values.networkPolicy.hub | indent 4 }}
  ports:
    - {port: 443}
{{- end }}
{{- end -}}
