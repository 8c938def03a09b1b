"""The language model over torch and transformers: the only part of the server that imports them.

Types here are looser than elsewhere (the libraries are partly untyped); nothing above sees a tensor. Reading
order: `model` → `load` (from source to memory) → `batch` (rows that advance together) → `sampling` →
`adapters`, `memory`.
"""
