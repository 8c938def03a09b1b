"""Builds, pushes and exports the container images of the repository, with Docker or Buildah.

`python -m hack.images` is the command line; `make images`, `make push` and `hack.release` use it.
"""
