"""The process: `python -m memcached_operator`, or the command `memcached-operator`."""

from kaito.runtime import Manager, Settings

from memcached_operator.controller import controller


def main() -> None:
    """Runs until a signal."""
    Manager(Settings.from_env("MEMCACHED_"), controllers=[controller], lease="memcached-operator").run()


if __name__ == "__main__":
    main()
