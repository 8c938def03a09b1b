"""What a Workspace with `resource.partition` uses of a node."""

import pytest

from kaito.api.workspace import Partition
from kaito.models.gpu import GIB, Gpu, InstanceType
from kaito.models.partitions import PartitionUnavailable, part_of

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
