{{- define "landbridge.labels" -}}
app.kubernetes.io/name: landbridge
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: landbridge
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* istiod's: selectors and dashboards go by them. */}}
{{- define "landbridge.selector" -}}
app: istiod
istio: pilot
{{- end }}

{{- define "landbridge.image" -}}
{{- if contains "/" .Values.pilot.image -}}
{{ .Values.pilot.image }}
{{- else -}}
{{ printf "%s/%s:%s" .Values.global.hub .Values.pilot.image (.Values.global.tag | default .Chart.AppVersion) }}
{{- end -}}
{{- end }}

{{/* default:info is Istio's way to write it. */}}
{{- define "landbridge.logLevel" -}}
{{ .Values.global.logging.level | trimPrefix "default:" | trimPrefix "all:" | replace "warning" "warn" }}
{{- end }}

{{/* Whether the mesh's configuration is this cluster's; empty if not. */}}
{{- define "landbridge.configCluster" -}}
{{- if or (not .Values.istiodRemote.enabled) .Values.global.configCluster }}true{{ end -}}
{{- end }}

{{/* Of Service istiod, for webhooks. An ExternalName leads to another place, but not to another port. */}}
{{- define "landbridge.webhookPort" -}}
{{ .Values.istiodRemote.enabled | ternary 15017 443 }}
{{- end }}

{{/* What people give, over what the chart knows. */}}
{{- define "landbridge.meshConfig" -}}
{{- $known := dict "rootNamespace" .Release.Namespace -}}
{{- if .Values.global.meshID -}}
{{- $_ := set $known "defaultConfig" (dict "meshId" .Values.global.meshID) -}}
{{- end -}}
{{- toYaml (mergeOverwrite $known (deepCopy .Values.meshConfig)) -}}
{{- end }}

{{/* The API group of ServiceExport and ServiceImport. */}}
{{- define "landbridge.mcsGroup" -}}
{{ .Values.pilot.env.MCS_API_GROUP | default "multicluster.x-k8s.io" }}
{{- end }}

{{/* Whether every Service gets a ServiceExport; empty if not. */}}
{{- define "landbridge.autoExport" -}}
{{- if has (.Values.pilot.env.ENABLE_MCS_AUTO_EXPORT | toString | lower) (list "1" "t" "true" "y" "yes" "on") }}true{{ end -}}
{{- end }}

{{/* What a control plane reads of a cluster that is not its own, and how it knows that cluster's tokens. */}}
{{- define "landbridge.readRules" -}}
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [nodes, pods, serviceaccounts, services]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
# What crosses where ENABLE_MCS_HOST or ENABLE_MCS_SERVICE_DISCOVERY say so, and whether these kinds are gone or only their objects.
{{- $group := include "landbridge.mcsGroup" . }}
- apiGroups: [{{ $group }}]
  resources: [serviceexports, serviceimports]
  verbs: [list, watch]
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames: [serviceexports.{{ $group }}, serviceimports.{{ $group }}]
  verbs: [get]
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
- nonResourceURLs: [/readyz]
  verbs: [get]
{{- end }}

{{/* The roots that proxies trust, in every namespace. A list of one name needs the name in its request, as landbridge makes it. */}}
{{- define "landbridge.writeRules" -}}
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create]
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [istio-ca-root-cert]
  verbs: [get, list, watch, patch]
{{- if .Values.events.enabled }}
# What is wrong with objects is said at them.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
{{- if include "landbridge.autoExport" . }}
# Every Service is offered to other clusters (ENABLE_MCS_AUTO_EXPORT).
- apiGroups: [{{ include "landbridge.mcsGroup" . }}]
  resources: [serviceexports]
  verbs: [create]
{{- end }}
{{- end }}

{{/* Which replica writes; in istio-system only. */}}
{{- define "landbridge.leaderRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, watch, create, update]
{{- end }}
