"""Provides what the tests of the console in a real browser need: Chromium and the accessibility checker axe-core.

    python -m hack.browser             print the path of Chromium; as root on Debian it is installed if it is missing
    python -m hack.browser --locate    print the path; install nothing

Chromium is that of the system: the variable KAITO_CHROMIUM, or `chromium`, `chromium-browser` or `google-chrome` on the
PATH. axe-core comes from the npm registry, pinned by digest, and is kept in ~/.cache/kaito/browser.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from hack.cache import cache_folder
from hack.console_vendor import VendorError, write_axe

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGES: Final = ("chromium", "fonts-dejavu-core")


class BrowserMissing(RuntimeError):
    """No browser is installed and none can be installed; the message contains the remedy."""


def locate() -> Path:
    """Returns the path of Chromium.

    Raises:
        BrowserMissing: there is none.
    """
    configured = os.environ.get("KAITO_CHROMIUM")
    if configured:
        if not Path(configured).is_file():
            raise BrowserMissing(f"KAITO_CHROMIUM={configured} does not exist: set it to the path of a Chromium")
        return Path(configured)
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return Path(found)
    raise BrowserMissing(
        "Chromium is not installed: run `make browser` as root on Debian, or install it and set KAITO_CHROMIUM"
    )


def axe() -> Path:
    """Returns the path of axe-core; fetches it on the first call.

    Raises:
        VendorError: it cannot be fetched.
    """
    return write_axe(cache_folder("browser"))


def install() -> Path:
    """Returns the path of Chromium; installs it with apt-get if it is missing.

    Raises:
        BrowserMissing: it is missing, and this user or system cannot install it.
    """
    try:
        return locate()
    except BrowserMissing:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise
    print("installing Chromium with apt-get (a download of about 100 MiB)", file=sys.stderr, flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES],
    ):
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise BrowserMissing(f"`{' '.join(command)}` failed: {result.stderr.strip()[-400:]}")
    return locate()


def main() -> int:
    """Prints the path and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.browser", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--locate", action="store_true", help="install nothing")
    options = parser.parse_args()
    try:
        print(locate() if options.locate else install())
        if not options.locate:
            axe()
    except (BrowserMissing, VendorError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
