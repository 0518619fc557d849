{{/* The labels of every object. */}}
{{- define "gatehouse.labels" -}}
{{ include "gatehouse.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: gatehouse
{{- end }}

{{/* What selects the controller's Pods. It never changes. */}}
{{- define "gatehouse.selector" -}}
app.kubernetes.io/name: gatehouse-controller
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The name of what has no namespace: two installations have two. */}}
{{- define "gatehouse.clusterName" -}}
gatehouse-controller-{{ .Release.Namespace }}
{{- end }}
