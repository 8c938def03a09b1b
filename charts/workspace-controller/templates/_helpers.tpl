{{/* Names are fixed: the CRDs and the webhook configuration exist once in a cluster, and so does the installation. */}}
{{- define "workspace-controller.name" -}}workspace-controller{{- end }}

{{- define "workspace-controller.selector" -}}
app.kubernetes.io/name: workspace-controller
{{- end }}

{{/* kaito.sh/installation marks what the installation guard protects. */}}
{{- define "workspace-controller.labels" -}}
app.kubernetes.io/name: workspace-controller
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: kaito
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
kaito.sh/installation: "true"
{{- end }}

{{- define "workspace-controller.activatorLabels" -}}
app.kubernetes.io/name: workspace-activator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: kaito
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
kaito.sh/installation: "true"
{{- end }}

{{/* Command line of the activator; a flag is present only if its value differs from the program's default. */}}
{{- define "workspace-controller.activatorArgs" -}}
{{- if ne (int .Values.activator.holdSeconds) 600 }}
- --hold={{ int .Values.activator.holdSeconds }}s
{{- end }}
{{- if ne (int .Values.activator.holdRequests) 1000 }}
- --hold-requests={{ int .Values.activator.holdRequests }}
{{- end }}
{{- if .Values.metrics.secure }}
- --metrics-secure
{{- end }}
{{- if ne .Values.logging.level "info" }}
- --log-level={{ .Values.logging.level }}
{{- end }}
{{- if ne .Values.logging.format "json" }}
- --log-format={{ .Values.logging.format }}
{{- end }}
{{- if .Values.activator.keda.enabled }}
- --keda-port={{ int .Values.activator.keda.port }}
{{- if .Values.activator.keda.certSecret }}
- --keda-cert-dir=/etc/kaito/keda
{{- end }}
{{- end }}
{{- range .Values.activator.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{- define "workspace-controller.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Command line; a flag is present only if its value differs from the program's default. */}}
{{- define "workspace-controller.args" -}}
{{- if .Values.nodeApi }}
- --node-api={{ .Values.nodeApi }}
{{- end }}
{{- if .Values.nodeProvisioner }}
- --node-provisioner={{ .Values.nodeProvisioner }}
{{- end }}
{{- range $field, $flag := dict "group" "group" "kind" "kind" "version" "version" "resourceName" "resource-name" "name" "name" }}
{{- with index $.Values.karpenterNodeClass $field }}
- --karpenter-node-class-{{ $flag }}={{ . }}
{{- end }}
{{- end }}
{{- with .Values.modelRegistry }}
- --model-registry={{ . }}
{{- end }}
{{- with .Values.weightsSource }}
- --weights-source={{ . }}
{{- end }}
{{- with .Values.nodeCacheDirectory }}
- --node-cache-directory={{ . }}
{{- end }}
{{- if .Values.podDefaults }}
- --pod-defaults=/etc/kaito/pod-defaults.yaml
{{- end }}
{{- with .Values.region }}
- --region={{ . }}
{{- end }}
{{- with .Values.migStrategy }}
- --mig-strategy={{ . }}
{{- end }}
{{- if .Values.priceTable }}
- --price-table=/etc/kaito-prices/prices.yaml
{{- end }}
{{- with .Values.servingImage }}
- --serving-image={{ . }}
{{- end }}
{{- with .Values.vllmImage }}
- --vllm-image={{ . }}
{{- end }}
{{- with .Values.tracing.endpoint }}
- --tracing-endpoint={{ . }}
{{- end }}
{{- if .Values.defaultNodeImageFamily }}
- --default-node-image-family={{ .Values.defaultNodeImageFamily }}
{{- end }}
{{- $gates := list }}
{{- range $gate, $enabled := .Values.featureGates }}
{{- if ne $enabled (eq $gate "vLLM") }}{{ $gates = append $gates (printf "%s=%t" $gate $enabled) }}{{ end }}
{{- end }}
{{- if $gates }}
- --feature-gates={{ join "," $gates }}
{{- end }}
{{- if not .Values.installationGuard }}
- --installation-guard=false
{{- end }}
{{- if not .Values.webhook.enabled }}
- --webhook=false
{{- end }}
{{- if ne (int .Values.webhook.port) 9443 }}
- --webhook-port={{ int .Values.webhook.port }}
{{- end }}
{{- if .Values.webhook.certSecret }}
- --webhook-cert-dir=/certificates/webhook
{{- end }}
{{- if ne (int .Values.metrics.port) 8080 }}
- --metrics-bind-address=:{{ int .Values.metrics.port }}
{{- end }}
{{- if .Values.metrics.secure }}
- --metrics-secure
{{- end }}
{{- if .Values.metrics.certSecret }}
- --metrics-cert-path=/certificates/metrics
{{- end }}
{{- if ne .Values.logging.level "info" }}
- --log-level={{ .Values.logging.level }}
{{- end }}
{{- if ne .Values.logging.format "json" }}
- --log-format={{ .Values.logging.format }}
{{- end }}
{{- range .Values.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{/* Combinations that the schema cannot express. */}}
{{- define "workspace-controller.validate" -}}
{{- if and .Values.metrics.certSecret (not .Values.metrics.secure) }}
{{- fail "metrics.certSecret has no effect without metrics.secure: set both, or neither" }}
{{- end }}
{{- if and .Values.nodeApi (ne .Values.nodeApi "byo") (eq .Values.nodeProvisioner "byo") }}
{{- fail (printf "nodeProvisioner=byo contradicts nodeApi=%s: set nodeApi to byo or to an empty string" .Values.nodeApi) }}
{{- end }}
{{- if and (or .Values.karpenterNodeClass.group .Values.karpenterNodeClass.kind) (not (has "karpenter" (list .Values.nodeApi .Values.nodeProvisioner))) (ne .Values.nodeApi "nodeclaim") }}
{{- fail "karpenterNodeClass has no effect without nodeApi=nodeclaim or karpenter: set both, or neither" }}
{{- end }}
{{- if and .Values.webhook.caBundle (not .Values.webhook.certSecret) }}
{{- fail "webhook.caBundle has no effect without webhook.certSecret: the controller writes the bundle of its own certificate" }}
{{- end }}
{{- end }}
