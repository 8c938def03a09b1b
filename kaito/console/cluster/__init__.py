"""The cluster as informers keep it: kinds, and the objects of one Workspace."""
