"""Bounds of CPU and memory that the name of an instance type gives."""

import pytest

from kaito.models.gpu import GIB
from kaito.models.instance_types import Cloud, instance_types
from kaito.models.node_capacity import max_cpus, max_memory_bytes


@pytest.mark.parametrize(
    ("name", "cloud", "cpus"),
    [
        ("Standard_NC24ads_A100_v4", "azure", 24),
        ("standard_nc24ADS_a100_v4", "azure", 24),
        ("Standard_ND96isr_H100_v5", "azure", 96),
        ("Standard_ND96asr_A100_v4", "azure", 96),
        ("Standard_NV36ads_A10_v5", "azure", 36),
        ("Standard_D4s_v3", "azure", 4),
        ("Standard_M8-2ms", "azure", 2),
        ("Standard_NC4as_T4_v3", "arc", 4),
        ("g5.xlarge", "aws", 4),
        ("p4d.24xlarge", "aws", 96),
        ("p5.48xlarge", "aws", 192),
        ("g4dn.metal", "aws", None),
        ("something", "azure", None),
    ],
)
def test_the_name_gives_the_number_of_cpus(name: str, cloud: Cloud, cpus: int | None) -> None:
    assert max_cpus(name, cloud) == cpus


def test_memory_is_bounded_for_gpu_sizes_only() -> None:
    assert max_memory_bytes("Standard_NC24ads_A100_v4", "azure") == 24 * 24 * GIB
    assert max_memory_bytes("Standard_M128ms", "azure") is None
    assert max_memory_bytes("p4d.24xlarge", "aws") is None


@pytest.mark.parametrize(
    ("name", "sold"),
    [
        ("Standard_NC6s_v3", 112),
        ("Standard_NC24ads_A100_v4", 220),
        ("Standard_NC40ads_H100_v5", 320),
        ("Standard_ND96asr_v4", 900),
        ("Standard_ND96amsr_A100_v4", 1924),
        ("Standard_ND96isr_H100_v5", 1900),
        ("Standard_NV36ads_A10_v5", 440),
    ],
)
def test_the_bound_is_above_what_is_sold(name: str, sold: int) -> None:
    """Memory in GiB as the cloud documents it."""
    most = max_memory_bytes(name, "azure")
    assert most is not None
    assert sold * GIB < most


def test_every_azure_size_of_the_table_has_both_bounds() -> None:
    for instance in instance_types("azure"):
        assert max_cpus(instance.name, "azure"), instance.name
        assert max_memory_bytes(instance.name, "azure"), instance.name
