"""Implementation of `language_model.LanguageModel` with torch and transformers, the only part that imports them.

Reading order: `model` → `load` (from source to memory) → `batch` (rows that advance together) → `plan` and `sampling`
(options, and tokens from logits) → `unbatched` (rows outside the batch) → `adapters`, `memory`. Tensors do not leave
this package. Types are looser than elsewhere, because the libraries are partly untyped.
"""
