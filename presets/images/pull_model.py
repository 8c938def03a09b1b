"""`/workspace/oci/pull_model.py`: what the init container of a model pod runs; see `kaito_oci.pull_command`."""
# ruff: noqa: INP001 - a script that is run by path

from kaito_oci.pull_command import main

raise SystemExit(main())
