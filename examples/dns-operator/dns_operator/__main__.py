"""The process: `python -m dns_operator`, or the command `dns-operator`; DNS_PROVIDER_URL is the address of the API."""

from kaito.runtime import Manager, Settings

from dns_operator.controller import controller
from dns_operator.provider import lifespan


def main() -> None:
    """Runs until a signal."""
    Manager(Settings.from_env("DNS_"), controllers=[controller], lifespan=lifespan, lease="dns-operator").run()


if __name__ == "__main__":
    main()
