"""What a Workspace with `resource.partition` uses of a node."""

import pytest

from kaito.api.workspace import Partition
from kaito.models.gpu import GIB, Gpu, InstanceType
from kaito.models.instance_types import get, instance_types
from kaito.models.partitions import PartitionUnavailable, divided, part_of

A100 = InstanceType("NVIDIA-A100-SXM4-80GB", Gpu("NVIDIA A100", "nvidia", 8.0), 4, 80 * GIB)
SHARED = InstanceType("NVIDIA-A10-SHARED", Gpu("NVIDIA A10", "nvidia", 8.6), 1, 24 * GIB, is_part=True)


def mig(profile: str) -> Partition:
    return Partition(mode="mig", profile=profile)


def accelerator(count: int) -> Partition:
    return Partition(mode="accelerator", count=count)


def test_whole_gpus_are_counted() -> None:
    part = part_of(A100, accelerator(2))
    assert (part.gpus, part.memory_per_gpu, part.is_part, part.resource_name) == (2, 80 * GIB, False, "nvidia.com/gpu")
    assert part_of(A100, accelerator(4)) == A100


def test_a_slice_has_the_memory_of_the_label_or_of_its_name() -> None:
    part = part_of(A100, mig("3g.40gb"))
    assert (part.gpus, part.is_part, part.resource_name) == (1, True, "nvidia.com/mig-3g.40gb")
    assert part.memory_per_gpu == 40 * 10**9
    labels = [{"nvidia.com/mig-1g.10gb.memory": text} for text in ("9856", "9728", "", "-1", "x")]
    assert part_of(A100, mig("1g.10gb"), labels).memory_per_gpu == 9728 * 2**20
    assert part_of(A100, mig("2g.20gb"), labels).memory_per_gpu == 20 * 10**9


@pytest.mark.parametrize(
    ("instance", "partition", "message"),
    [
        (A100, accelerator(5), "count: is 5, the nodes have 4: use at most 4"),
        (SHARED, accelerator(1), "requests whole GPUs, but NVIDIA-A10-SHARED is a part of a GPU: remove it"),
        (A100, mig("7g.141gb"), "'7g.141gb' is larger than a GPU of the nodes"),
        (A100, mig("1g.10gb.me"), "is not a MIG profile such as 1g.10gb"),
        (A100, mig("0g.0gb"), "is not a MIG profile such as 1g.10gb"),
    ],
)
def test_parts_that_the_nodes_do_not_have_are_refused(
    instance: InstanceType, partition: Partition, message: str
) -> None:
    with pytest.raises(PartitionUnavailable) as caught:
        part_of(instance, partition)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "profile", "slices", "gib", "cloud_profile"),
    [
        ("Standard_NC24ads_A100_v4", "1g.10gb", 7, 9.5, "MIG1g"),
        ("Standard_NC24ads_A100_v4", "2g.20gb", 3, 19, "MIG2g"),
        ("Standard_NC48ads_A100_v4", "3g.40gb", 4, 38, "MIG3g"),
        ("Standard_ND96asr_v4", "1g.5gb", 56, 4.75, "MIG1g"),
        ("Standard_NC40ads_H100_v5", "4g.47gb", 1, 43, "MIG4g"),
        ("Standard_ND96isr_H200_v5", "7g.141gb", 8, 128, "MIG7g"),
    ],
)
def test_a_new_node_has_the_slices_of_all_its_gpus(
    name: str, profile: str, slices: int, gib: float, cloud_profile: str
) -> None:
    found = divided(get(name), mig(profile))
    assert (found.slices, found.gpus, found.memory_per_gpu / GIB, found.profile) == (slices, 1, gib, cloud_profile)
    assert found.is_part
    assert found.resource_name == "nvidia.com/gpu"
    assert divided(get(name), mig(profile), "mixed").resource_name == f"nvidia.com/mig-{profile}"


def test_slices_are_described_by_their_number_and_memory() -> None:
    found = divided(get("Standard_NC24ads_A100_v4"), mig("1g.10gb"))
    assert str(found) == "Standard_NC24ads_A100_v4 1g.10gb (7 slices of NVIDIA A100, 9.5 GiB each)"


@pytest.mark.parametrize(
    ("name", "profile", "message"),
    [
        (
            "Standard_NC24ads_A100_v4",
            "1g.5gb",
            (
                "is '1g.5gb', which the GPUs of Standard_NC24ads_A100_v4 do not have: use one of "
                "1g.10gb, 2g.20gb, 3g.40gb, 4g.40gb, 7g.80gb"
            ),
        ),
        (
            "Standard_NC24ads_A100_v4",
            "1g.20gb",
            (
                "is '1g.20gb', which the GPUs of Standard_NC24ads_A100_v4 do not have: use one "
                "of 1g.10gb, 2g.20gb, 3g.40gb, 4g.40gb, 7g.80gb"
            ),
        ),
        (
            "Standard_NC6s_v3",
            "1g.10gb",
            (
                "is '1g.10gb', but the GPUs of Standard_NC6s_v3 cannot be divided: remove "
                "resource.partition, or choose an instance type with A100, H100 or H200"
            ),
        ),
        (
            "Standard_NCC40ads_H100_v5",
            "1g.12gb",
            (
                "is '1g.12gb', but the GPUs of Standard_NCC40ads_H100_v5 cannot be divided: "
                "remove resource.partition, or choose an instance type with A100, H100 or H200"
            ),
        ),
    ],
)
def test_profiles_that_a_new_node_cannot_have_are_refused(name: str, profile: str, message: str) -> None:
    with pytest.raises(PartitionUnavailable) as caught:
        divided(get(name), mig(profile))
    assert (caught.value.field, caught.value.message) == ("resource.partition.profile", message)


def test_the_slices_of_a_gpu_have_no_more_memory_than_the_gpu() -> None:
    profiles = ("1g.5gb", "1g.10gb", "1g.12gb", "1g.18gb", "2g.20gb", "3g.40gb", "7g.80gb", "7g.94gb", "7g.141gb")
    checked = 0
    for instance in instance_types("azure"):
        for profile in profiles:
            try:
                part = divided(instance, mig(profile))
            except PartitionUnavailable:
                continue
            checked += 1
            assert part.slices * part.memory_per_gpu <= instance.gpu_memory
            assert part.memory_per_gpu < int(profile.partition(".")[2].removesuffix("gb")) * 1.08 * 10**9
    assert checked > len(profiles)
