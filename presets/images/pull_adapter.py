"""`/workspace/oci/pull_adapter.py`: what init containers run to fetch adapters and data; see
`kaito_oci.main`."""
# ruff: noqa: INP001 - a script that is run by path

from kaito_oci.main import pull

raise SystemExit(pull())
