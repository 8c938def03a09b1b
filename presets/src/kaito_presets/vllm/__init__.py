"""The wrapper around vLLM: its arguments from preset, configuration and hardware, and `/chat` on top of its
OpenAI routes.

vLLM runs as a child process on loopback and is never imported, so everything here is tested without it,
against an OpenAI-compatible stub. Reading order: `main` → `options` → `hardware`, `arguments` (pure) →
`engine` (the child) → `proxy` (routes) → `translate` (`/chat`).
"""
