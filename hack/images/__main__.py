"""Runs `python -m hack.images`."""

import sys

from hack.images.command import main

sys.exit(main(sys.argv[1:]))
