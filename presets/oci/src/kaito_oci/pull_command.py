"""`kaito-pull-model`: pulls the files of a model artifact into a directory.

The init container of a model pod runs it as `/workspace/oci/pull_model.py`. The exit codes are listed in
`kaito_oci.errors`; the reason of a failure is the last line of the log and the termination message of the container.
"""

import logging
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from kaito_oci.command_line import Parser, fail
from kaito_oci.errors import ProgramError
from kaito_oci.marker import Marker
from kaito_oci.model_cache import pull_cached
from kaito_oci.model_pull import PARALLEL, PullOptions, pull_model
from kaito_oci.progress import Progress, reporting, serving
from kaito_oci.reference import parse_reference

PROGRAM: Final = "kaito-pull-model"
TERMINATION_LOG: Final = Path("/dev/termination-log")
"""File whose content becomes the termination message (default of `terminationMessagePath`)."""

log = logging.getLogger(__name__)


def main() -> int:
    """Runs the `kaito-pull-model` command; returns the exit code."""
    logging.basicConfig(level="INFO", format="%(levelname)s %(message)s", stream=sys.stderr)
    progress = Progress()
    try:
        options = _parser().parse_args(sys.argv[1:])
        marker = run(options, progress)
    except ProgramError as error:
        _terminate(str(error))
        return fail(PROGRAM, error)
    print(f"{options.directory}: {', '.join(marker.files)}")  # noqa: T201 - the result of the command
    return 0


def run(options: Any, progress: Progress) -> Marker:
    """Pulls with the progress reported."""
    reference = parse_reference(options.reference)
    progress.subject = str(reference)
    pull_options = PullOptions(options.docker_config, plain_http=options.plain_http, parallel=options.parallel)
    with ExitStack() as stack:
        stack.enter_context(serving(progress, options.progress_port))
        if options.progress_file:
            progress.files.append(options.progress_file)
        stack.enter_context(reporting(progress))
        try:
            if options.cache:
                return pull_cached(reference, options.directory, options.cache, progress, pull_options)
            return pull_model(reference, options.directory, progress, pull_options)
        except ProgramError as error:
            progress.set_phase("failed", str(error))
            raise


def _parser() -> Parser:
    parser = Parser(PROGRAM, "Pull the files of a model artifact into a directory.")
    parser.add_argument("reference", help="image reference: registry/repository:tag")
    parser.add_argument("directory", type=Path, help="target directory")
    parser.registry_flags()
    parser.flag("cache", type=Path, help="folder that the pods of a node share; the directory is linked to it")
    parser.flag("parallel", type=_positive, default=PARALLEL, help=f"layers at once (default: {PARALLEL})")
    parser.flag("progress-file", type=Path, help="JSON file with the progress")
    parser.flag("progress-port", type=int, help="port that serves GET /progress while the model is pulled")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 64:
        raise ValueError(text)
    return value


def _terminate(message: str) -> None:
    """Writes the termination message, if the container has a file for it."""
    try:
        if TERMINATION_LOG.exists():
            TERMINATION_LOG.write_text(message[:4000])
    except OSError as error:
        log.debug("%s cannot be written: %s", TERMINATION_LOG, error)
