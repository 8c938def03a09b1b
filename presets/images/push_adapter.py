"""`/workspace/oci/push_adapter.py`: packs and pushes an adapter directory; see `kaito_oci.main`."""
# ruff: noqa: INP001 - a script that is run by path

from kaito_oci.main import push

raise SystemExit(push())
