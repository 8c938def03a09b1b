"""The transformers inference server: `/chat` of Kaito's first contract and the OpenAI routes over one
batching engine.

Reading order: `main` (the program) → `server` (life cycle and routes) → `chat`, `openai` (the two contracts)
→ `service` (text in, text out) → `scheduler` (queue and batch) → `language_model` (the seam) → `backend`
(torch and transformers). Everything above the seam runs and is tested without torch.
"""
