"""The gpu-provisioner manager: a Machine or NodeClaim becomes one cloud instance, one node, and goes again with it."""
