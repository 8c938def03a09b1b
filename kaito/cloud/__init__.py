"""Where machines come from: the provider Protocol that gpu-provisioner is written against, and its Azure half."""
