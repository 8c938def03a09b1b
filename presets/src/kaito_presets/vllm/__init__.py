"""Wrapper around vLLM: computes the flags of the engine, runs it, and serves `/chat` in front of its OpenAI routes.

vLLM runs as a child process on loopback and is not imported, so tests replace it by a small OpenAI-compatible server.
Reading order: `main` → `options` → `hardware`, `arguments`, `offload` (flags) → `engine` (the process) → `proxy`
(routes) → `translate` (`/chat`).
"""
