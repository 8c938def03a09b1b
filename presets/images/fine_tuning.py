"""`/workspace/tfs/fine_tuning.py`: the path that the workspace controller's pods start; the program is
`kaito_presets.tuning.main`."""
# ruff: noqa: INP001 - a script that is run by path

from kaito_presets.tuning.main import main

raise SystemExit(main())
