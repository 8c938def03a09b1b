"""Inference server of the transformers runtime: `/chat` and OpenAI's routes on one continuously batched model.

Reading order: `main` (the program) → `server` (life cycle and routes) → `chat`, `openai_routes` (the two APIs) →
`service` (text) → `scheduler` (queue and batch) → `language_model` (the interface) → `backend` (torch and
transformers). Everything but `backend` runs, and is tested, without torch.
"""
