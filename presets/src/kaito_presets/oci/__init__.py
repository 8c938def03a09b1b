"""Adapters as container images: packing, pushing and pulling over the registry protocol, without docker,
oras or skopeo.

Used by the tuning job (push) and by init containers (pull). Pure standard library. Reading order:
`reference` → `credentials` → `registry` (the protocol) → `adapter_image` (what is in the image) → `main`
(two commands).
"""
