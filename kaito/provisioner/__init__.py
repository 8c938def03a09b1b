"""Creates one cloud instance and node per Machine or NodeClaim, and deletes them with it: the gpu-provisioner."""
