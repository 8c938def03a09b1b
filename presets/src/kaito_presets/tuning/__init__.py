"""Tuning job: trains a LoRA or QLoRA adapter on a data set and pushes it as an image.

Reading order: `main` (the program) → `options`, `config` → `run` (sequence of a run, resuming) → `download`, `dataset`,
`rows` (data; without torch) → `examples`, `train`, `memory` (torch, transformers, PEFT) → `record` (files of a run) →
`progress` → `kaito_oci`.
"""
