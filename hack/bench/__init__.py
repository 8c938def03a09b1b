"""Benchmarks: each prints one JSON object and a table; `docs/internals/benchmarks.md` records them with their command.

`python -m hack.bench` lists them; `python -m hack.bench workspaces --count 50` runs one.
"""
