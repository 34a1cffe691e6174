{{- /* Where a secret is: "name: …\nkey: …" of a Secret, or nothing when it is not given.
Call: (dict "root" . "key" "keyPepper" "value" .Values.secrets.keyPepper). */ -}}
{{- define "flotilla.secretRef" -}}
{{- $external := .root.Values.secrets.external -}}
{{- if kindIs "map" .value -}}
name: {{ required (printf "secrets.%s: secretName is missing" .key) .value.secretName }}
key: {{ required (printf "secrets.%s: secretKey is missing" .key) .value.secretKey }}
{{- else if and $external.enabled (hasKey $external.data .key) -}}
name: {{ include "flotilla.fullname" .root }}-secrets
key: {{ .key }}
{{- else if or .value (and .root.Values.secrets.generate (has .key (list "keyPepper" "replicaSecret"))) -}}
name: {{ include "flotilla.fullname" .root }}-secrets
key: {{ .key }}
{{- end -}}
{{- end }}

{{- /* One entry of `env` from a secret. Call: as secretRef, with "env" and "required". */ -}}
{{- define "flotilla.secretEnv" -}}
{{- $ref := include "flotilla.secretRef" . -}}
{{- if $ref }}
- name: {{ .env }}
  valueFrom:
    secretKeyRef:
{{ $ref | indent 6 }}
{{- else if .required -}}
{{- fail (printf "secrets.%s is missing: give it as text, as {secretName, secretKey}, under secrets.external.data, or set secrets.generate with helm install" .key) }}
{{- end }}
{{- end }}

{{- /* Entries of `env` of whoever opens the ledger. */ -}}
{{- define "flotilla.databaseEnv" -}}
{{- if .Values.postgresql.enabled }}
- name: PGPASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .Release.Name }}-postgresql
      key: password
- name: FLOTILLA_DATABASE_URL
  value: postgresql://flotilla@{{ .Release.Name }}-postgresql:5432/flotilla
{{- else }}
{{- include "flotilla.secretEnv" (dict "root" . "key" "databaseUrl" "value" .Values.secrets.databaseUrl "env" "FLOTILLA_DATABASE_URL" "required" true) }}
{{- end }}
{{- end }}
