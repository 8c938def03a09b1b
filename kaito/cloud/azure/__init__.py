"""The Azure half of the cloud room: agent pools of a managed cluster over ARM. Only here `azure.*` is imported."""
