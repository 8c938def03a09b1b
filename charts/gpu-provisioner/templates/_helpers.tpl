{{/* Names are fixed: the claims of a cluster have one provisioner. */}}
{{- define "gpu-provisioner.name" -}}gpu-provisioner{{- end }}

{{- define "gpu-provisioner.selector" -}}
app.kubernetes.io/name: gpu-provisioner
{{- end }}

{{/* kaito.sh/installation marks what the installation guard protects. */}}
{{- define "gpu-provisioner.labels" -}}
app.kubernetes.io/name: gpu-provisioner
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: kaito
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
kaito.sh/installation: "true"
{{- with .Values.additionalLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "gpu-provisioner.image" -}}
{{- with .Values.controller.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Command line; a flag is present only if its value differs from the program's default. */}}
{{- define "gpu-provisioner.args" -}}
- --node-api={{ .Values.nodeApi }}
{{- if ne (int .Values.controller.metrics.port) 8080 }}
- --metrics-bind-address=:{{ int .Values.controller.metrics.port }}
{{- end }}
{{- if ne (int .Values.controller.healthProbe.port) 8081 }}
- --health-probe-bind-address=:{{ int .Values.controller.healthProbe.port }}
{{- end }}
{{- if .Values.controller.metrics.secure }}
- --metrics-secure
{{- end }}
{{- if .Values.controller.metrics.certSecret }}
- --metrics-cert-path=/certificates/metrics
{{- end }}
{{- with .Values.tracing.endpoint }}
- --tracing-endpoint={{ . }}
{{- end }}
{{- if ne .Values.logLevel "info" }}
- --log-level={{ .Values.logLevel }}
{{- end }}
{{- if ne .Values.logEncoding "json" }}
- --log-format={{ .Values.logEncoding }}
{{- end }}
{{- range .Values.controller.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{/* An incomplete configuration would end in a crash loop. */}}
{{- define "gpu-provisioner.validate" -}}
{{- $names := list }}
{{- range .Values.controller.env }}{{ $names = append $names .name }}{{ end }}
{{- $required := dict "subscriptionId" "ARM_SUBSCRIPTION_ID" "resourceGroup" "ARM_RESOURCE_GROUP" "clusterName" "AZURE_CLUSTER_NAME" }}
{{- range $value, $variable := $required }}
{{- if not (or (index $.Values.settings.azure $value) (has $variable $names) $.Values.controller.envFrom) }}
{{- fail (printf "settings.azure.%s is empty: set it to the AKS cluster that gets the nodes, or set %s in controller.env" $value $variable) }}
{{- end }}
{{- end }}
{{- if and .Values.controller.metrics.certSecret (not .Values.controller.metrics.secure) }}
{{- fail "controller.metrics.certSecret has no effect without controller.metrics.secure: set both, or neither" }}
{{- end }}
{{- end }}
