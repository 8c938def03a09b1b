"""The process: `python -m cronjob_operator`, or the command `cronjob-operator`."""

from kaito.runtime import Manager, Settings

from cronjob_operator.controller import controller


def main() -> None:
    """Runs until a signal."""
    Manager(Settings.from_env("CRONJOB_"), controllers=[controller], lease="cronjob-operator").run()


if __name__ == "__main__":
    main()
