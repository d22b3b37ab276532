{{- define "server.labels" -}}
app: {{ .Release.Name }}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "server.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* A digest wins over a tag: it names one content for ever. */}}
{{- define "server.image" -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag }}
{{- end -}}
{{- end }}

{{/* The tags of the devices: of the list, or of the flag. The region is one like the weight, so that the control plane knows it. */}}
{{- define "server.tags" -}}
{{- $tags := trimPrefix "--advertise-tags=" .Values.advertiseTags -}}
{{- if .Values.tags -}}
{{- $named := list -}}
{{- range .Values.tags -}}
{{- $named = append $named (printf "tag:%s" (trimPrefix "tag:" .)) -}}
{{- end -}}
{{- $tags = join "," $named -}}
{{- end -}}
{{- if and .Values.serverLocality (not (contains (printf "tag:%sregion-" .Values.tagPrefix) $tags)) -}}
{{- $tags = printf "%s,tag:%sregion-%s" $tags .Values.tagPrefix .Values.serverLocality -}}
{{- end -}}
{{- $tags -}}
{{- end }}

{{/*
What tailscale up is given. headscale refuses a device that brings both an auth key and tags of its own: there the key's
tags are the device's.
*/}}
{{- define "server.tailscaleArgs" -}}
{{- if .Values.loginServer -}}
--login-server={{ .Values.loginServer }}
{{- else if or .Values.tags .Values.advertiseTags -}}
--advertise-tags={{ include "server.tags" . }}
{{- end -}}
{{- end }}
