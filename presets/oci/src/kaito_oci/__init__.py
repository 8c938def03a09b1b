"""Packs models and adapters as container images, and pushes and pulls them over the registry protocol.

The tuning job pushes, init containers pull, and `kaito model` packs; none needs docker, oras or skopeo. Reading order:
`reference` → `credentials` → `registry` (the protocol) → `layers` (unpacking) → `adapter_image` (the content of an
image) → `main` (the commands). For models: `model_files` → `model_artifact` → `layout`, `model_push` →
`artifact_types` → `download` → `model_pull` → `model_cache` → `pull_command`. Uses the standard library and
`kaito_config` only.
"""
