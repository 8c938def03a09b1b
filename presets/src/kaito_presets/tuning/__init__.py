"""The tuning job: data → LoRA or QLoRA adapter → image.

Reading order: `main` (the program) → `options`, `config` (what it is told) → `download`, `dataset` (what it
learns from; no torch) → `run` (the order of a run, resuming) → `examples`, `train` (torch, transformers,
peft) → `progress` → `kaito_presets.oci`.
"""
