"""The command line: upstream's names, typed values, contradictions refused."""

import pytest

from kaito.runtime.flags import duration
from kaito.workspace.flags import feature_gates, parse
from kaito.workspace.settings import NodeApi


def test_defaults_are_the_founding_contract() -> None:
    invocation = parse([], {})
    assert invocation.workspace.node_api is NodeApi.MACHINE
    assert invocation.workspace.registry == "mcr.microsoft.com/aks/kaito"
    assert invocation.manager.leader_elect
    assert invocation.webhook
    assert invocation.manager.metrics_bind_address == ":8080"
    assert invocation.manager.health_probe_bind_address == ":8081"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--leader-elect=false"], False),
        (["--leader-elect=true"], True),
        (["--leader-elect"], True),
        ([], True),
    ],
)
def test_booleans_are_written_as_in_go(argv: list[str], expected: bool) -> None:
    assert parse(argv, {}).manager.leader_elect is expected


def test_the_environment_names_cloud_and_registry() -> None:
    settings = parse([], {"CLOUD_PROVIDER": "aws", "PRESET_REGISTRY_NAME": "registry.example/kaito"}).workspace
    assert (settings.cloud, settings.registry) == ("aws", "registry.example/kaito")


def test_an_unknown_cloud_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([], {"CLOUD_PROVIDER": "moon"})
    assert "cloud" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--node-api", "nodeclaim"], NodeApi.NODECLAIM),
        (["--node-provisioner", "byo"], NodeApi.BYO),
        (["--feature-gates", "disableNodeAutoProvisioning=true"], NodeApi.BYO),
        (["--node-provisioner", "azure-gpu-provisioner", "--node-api", "nodeclaim"], NodeApi.NODECLAIM),
    ],
)
def test_three_ways_to_say_where_nodes_come_from(argv: list[str], expected: NodeApi) -> None:
    assert parse(argv, {}).workspace.node_api is expected


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--node-api=machine", "--node-provisioner=byo"], "contradicts"),
        (["--node-api=byo", "--node-provisioner=azure-gpu-provisioner"], "contradicts"),
        (["--node-provisioner=karpenter"], "--node-api=nodeclaim"),
        (["--feature-gates=ModelStreaming=true"], "not implemented"),
        (["--feature-gates=vlm=true"], "unknown feature gate"),
        (["--deletion-timeout=soon"], "not a duration"),
        (["--node-ap=byo"], "unrecognized"),
    ],
)
def test_what_cannot_be_honoured_is_refused(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(argv, {})
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


def test_upstream_gates_may_be_named_to_switch_them_off() -> None:
    assert feature_gates("vLLM=false,enableInferenceSetController=false") == {
        "vLLM": False,
        "disableNodeAutoProvisioning": False,
    }


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1h30m", 5400), ("7", 7), ("250ms", 0.25)])
def test_durations_are_written_as_in_go(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)
