"""Packs models and adapters as container images, and pushes and pulls them over the registry protocol.

The tuning job pushes, init containers pull; neither image needs docker, oras or skopeo. Reading order: `reference` →
`credentials` → `registry` (the protocol) → `layers` (unpacking) → `adapter_image` (the content of an image) → `main`
(the commands). Uses the standard library only.
"""
