"""`/workspace/vllm/inference_api.py`: the path that the workspace controller's pods start; the program is
`kaito_presets.vllm.main`."""
# ruff: noqa: INP001 - a script that is run by path

from kaito_presets.vllm.main import main

raise SystemExit(main())
