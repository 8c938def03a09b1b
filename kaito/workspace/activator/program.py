"""The console script `workspace-activator`, which imports the program (`kaito.runtime.lazy`)."""

from kaito.runtime.lazy import load_program


def main() -> None:
    """Runs the program with the arguments of the process."""
    load_program("kaito.workspace.activator.main").main()
