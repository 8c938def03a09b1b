"""Addresses of the console: accepted Host headers, and the link that is printed."""

import pytest

from kaito.cli.main import parser
from kaito.console.console import Console
from kaito.console.security.origin import accepted_hosts
from kaito.console.settings import ConsoleSettings


@pytest.mark.parametrize(
    ("address", "hosts", "accepted", "refused"),
    [
        ("127.0.0.1", (), {"127.0.0.1:8585", "localhost:8585", "[::1]:8585"}, {"127.0.0.1", "0.0.0.0:8585", ""}),
        ("10.0.0.5", (), {"10.0.0.5:8585"}, {"10.0.0.6:8585"}),
        ("fd00::1", (), {"[fd00::1]:8585"}, {"fd00::1:8585"}),
        ("0.0.0.0", ("console.example.com",), {"console.example.com"}, {"0.0.0.0:8585", "console.example.com:8585"}),
    ],
)
def test_the_accepted_hosts(address: str, hosts: tuple[str, ...], accepted: set[str], refused: set[str]) -> None:
    found = accepted_hosts(ConsoleSettings(address=address, hosts=hosts), 8585)
    assert accepted <= found
    assert not refused & found


@pytest.mark.parametrize(
    ("address", "url"),
    [("127.0.0.1", "http://127.0.0.1:80/"), ("0.0.0.0", "http://127.0.0.1:80/"), ("fd00::1", "http://[fd00::1]:80/")],
)
def test_the_link_can_be_opened(address: str, url: str) -> None:
    assert Console(address, 80, "t").link == f"{url}?token=t"
    assert Console(address, 80, "").link == url


def test_the_console_reads_only_and_listens_on_loopback_by_default() -> None:
    arguments = parser().parse_args(["console"])
    assert (arguments.address, arguments.allow_writes, arguments.in_cluster) == ("127.0.0.1", False, False)
    assert arguments.namespace == []
