{{- define "mykube.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "mykube.serviceAccount" -}}
{{- default (ternary (include "mykube.name" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{- define "mykube.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "mykube.labels" -}}
{{ include "mykube.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "mykube.relayUrl" -}}
{{- $url := required "relayUrl is needed: the relay that this cluster and the laptops reach, like https://relay.example.com" .Values.relayUrl }}
{{- if not (hasPrefix "https://" $url) }}{{ fail "relayUrl must begin with https://: mykube uses plain http only to its own machine" }}{{ end }}
{{- $url }}
{{- end }}

{{/* The relay's port, as the NetworkPolicy needs it. */}}
{{- define "mykube.relayPort" -}}
{{- $host := (urlParse (include "mykube.relayUrl" .)).host }}
{{- default "443" (regexFind ":[0-9]+$" $host | trimPrefix ":") }}
{{- end }}

{{/* Rules of the policy, as `mykube server --allow` and `--deny` read them. */}}
{{- define "mykube.rules" -}}
{{- if .Values.policy.allow }}
allow.yaml: |
  {{- dict "rules" .Values.policy.allow | toYaml | nindent 2 }}
{{- end }}
{{- if .Values.policy.deny }}
deny.yaml: |
  {{- dict "rules" .Values.policy.deny | toYaml | nindent 2 }}
{{- end }}
{{- end }}
