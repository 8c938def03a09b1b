"""Address ranges of local clusters, and the lock on the folder of one."""

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from kaito.local import network
from kaito.local.cluster import FolderInUse, lock_folder
from kaito.local.network import Networks, NoFreeNetwork, PodAddresses, reserve_networks


def test_clusters_on_one_machine_have_different_addresses() -> None:
    """With the same ones, the readiness probe of one cluster was answered by a pod of the other."""
    with reserve_networks() as one, reserve_networks() as two:
        assert one.pods is not None
        assert two.pods is not None
        ranges = [one.pods, one.services, two.pods, two.services]
        assert not any(first.overlaps(second) for first in ranges for second in ranges if first is not second)
        assert {each.prefixlen for each in ranges} == {16}
        assert all(each.subnet_of(IPv4Network("127.64.0.0/10")) for each in ranges)
        assert PodAddresses(one.pods).take("a") != PodAddresses(two.pods).take("a")
    with reserve_networks() as again:
        assert again == one, "a range is free when its cluster has ended"


def test_too_many_clusters_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "MAX_CLUSTERS", 1)
    refused = pytest.raises(NoFreeNetwork, match="1 local clusters run on this machine: end one of them")
    with reserve_networks(), refused, reserve_networks():
        pass


def test_pods_share_the_only_address_of_a_machine_without_the_range() -> None:
    addresses = PodAddresses(Networks(None, IPv4Network("127.96.0.0/16")).pods)
    assert [addresses.take("a"), addresses.take("b")] == ["127.0.0.1", "127.0.0.1"]


def test_two_clusters_cannot_use_one_folder(tmp_path: Path) -> None:
    """The second one deleted the pods and logs of the first."""
    refused = pytest.raises(FolderInUse, match="choose another folder with --folder")
    with lock_folder(tmp_path / "cluster"), refused, lock_folder(tmp_path / "cluster"):
        pass
    with lock_folder(tmp_path / "cluster"):
        pass
