"""The command line has upstream's names and typed values, and rejects contradictions."""

from pathlib import Path

import pytest

from kaito.runtime.flags import duration
from kaito.workspace.flags import feature_gates, parse
from kaito.workspace.settings import NodeApi
from kaito.workspace.upstream import FLAGS, GATES, Flag, Gate, Support


def test_defaults_create_machines_and_elect_a_leader() -> None:
    invocation = parse([], {})
    assert invocation.workspace.node_api is NodeApi.MACHINE
    assert invocation.workspace.image_registry == "kaito"
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
    assert (settings.cloud, settings.image_registry) == ("aws", "registry.example/kaito")


@pytest.mark.parametrize(
    ("argv", "environ", "expected"),
    [
        ([], {"IMAGE_REGISTRY": "a.example/x", "PRESET_REGISTRY_NAME": "b.example"}, "a.example/x"),
        (["--image-registry=c.example/y/"], {"IMAGE_REGISTRY": "a.example/x"}, "c.example/y"),
        ([], {"PRESET_REGISTRY_NAME": "mcr.microsoft.com/aks/kaito"}, "kaito"),
        ([], {"IMAGE_REGISTRY": ""}, "kaito"),
    ],
)
def test_flag_and_environment_name_the_registry_of_the_images(
    argv: list[str], environ: dict[str, str], expected: str
) -> None:
    assert parse(argv, environ).workspace.image_registry == expected


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--image-registry=Registry.example/Kaito"], "--image-registry: 'Registry.example/Kaito' is not a registry"),
        (["--image-registry=https://registry.example"], "--image-registry: 'https://registry.example' is not a regis"),
        (["--serving-image=a b"], "--serving-image: 'a b'"),
        (["--vllm-image=a/Upper"], "--vllm-image: 'a/Upper'"),
    ],
)
def test_names_of_images_must_be_references(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(argv, {})
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_an_unknown_cloud_is_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([], {"CLOUD_PROVIDER": "moon"})
    assert "cloud" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--node-api", "nodeclaim"], NodeApi.NODECLAIM),
        (["--node-provisioner", "byo"], NodeApi.BYO),
        (["--node-provisioner", "karpenter"], NodeApi.KARPENTER),
        (["--node-provisioner", "karpenter", "--node-api", "karpenter"], NodeApi.KARPENTER),
        (["--node-api", "karpenter"], NodeApi.KARPENTER),
        (["--feature-gates", "disableNodeAutoProvisioning=true"], NodeApi.BYO),
        (["--node-provisioner", "azure-gpu-provisioner", "--node-api", "nodeclaim"], NodeApi.NODECLAIM),
    ],
)
def test_three_flags_configure_the_node_api(argv: list[str], expected: NodeApi) -> None:
    assert parse(argv, {}).workspace.node_api is expected


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--node-api=machine", "--node-provisioner=byo"], "contradicts"),
        (["--node-api=byo", "--node-provisioner=azure-gpu-provisioner"], "contradicts"),
        (["--node-api=nodeclaim", "--node-provisioner=karpenter"], "contradicts --node-provisioner=karpenter"),
        (["--node-api=karpenter", "--node-provisioner=azure-gpu-provisioner"], "contradicts"),
        (["--node-api=karpenter", "--node-provisioner=byo"], "contradicts"),
        (["--node-api=karpenter", "--karpenter-node-class-group=kaito.sh"], "does not fulfill NodePools"),
        (["--feature-gates=ModelStreaming=true"], "not implemented"),
        (["--feature-gates=vlm=true"], "unknown feature gate"),
        (["--deletion-timeout=soon"], "not a duration"),
        (["--node-ap=byo"], "unrecognized"),
    ],
)
def test_flags_that_cannot_be_honored_are_rejected(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
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


CHART_GATES = (
    "disableNodeAutoProvisioning=false,enableAccelerator=false,enableBaseImageAutoUpgrade=false,"
    "enableInferenceSetController=true,enableMIG=false,enableMultiRoleInferenceController=false,"
    "gatewayAPIInferenceExtension=false,ModelMirror=false,ModelStreaming=false,vLLM=true"
)
CHART_ENVIRONMENT = {
    "CONFIG_LOGGING_NAME": "kaito-logging-config",
    "WEBHOOK_SERVICE": "kaito-workspace-svc",
    "WEBHOOK_PORT": "9443",
    "SYSTEM_NAMESPACE": "kaito-workspace",
    "PRESET_REGISTRY_NAME": "mcr.microsoft.com/aks/kaito",
    "CLOUD_PROVIDER": "azure",
    "CLUSTER_NAME": "kaito",
}


def test_upstreams_chart_starts_the_controller_unedited() -> None:
    """Arguments and environment of the chart of v0.12 with its default values."""
    argv = [f"--feature-gates={CHART_GATES}", "--node-provisioner=azure-gpu-provisioner"]
    invocation = parse(argv, CHART_ENVIRONMENT)

    assert invocation.workspace.node_api is NodeApi.NODECLAIM
    assert invocation.workspace.vllm
    assert invocation.manager.webhook_port == 9443
    assert invocation.manager.webhook_hosts == ("kaito-workspace-svc.kaito-workspace.svc",)
    (registry,) = invocation.notes
    assert registry.startswith("PRESET_REGISTRY_NAME=mcr.microsoft.com/aks/kaito has no effect: upstream's images have")


def test_every_value_of_upstreams_chart_is_accepted() -> None:
    argv = [
        f"--feature-gates={CHART_GATES}",
        "--default-model-mirror-storage-class=blob",
        "--default-model-weights-storage-class=weights",
        "--default-streaming-service-account=streamer",
        "--model-mirror-download-cpu=3",
        "--model-mirror-download-memory=8Gi",
        "--default-node-image-family=azurelinux",
        "--node-provisioner=byo",
        "--karpenter-node-class-group=karpenter.azure.com",
        "--karpenter-node-class-kind=AKSNodeClass",
        "--karpenter-node-class-version=v1beta1",
        "--karpenter-node-class-resource-name=aksnodeclasses",
        '--karpenter-node-classes=[{"name":"a","default":true}]',
    ]
    invocation = parse(argv, CHART_ENVIRONMENT)

    named = [note.split(" has no effect: ")[0] for note in invocation.notes]
    assert named == [
        "--karpenter-node-classes",
        "--default-model-mirror-storage-class",
        "--default-streaming-service-account",
        "--model-mirror-download-cpu",
        "--model-mirror-download-memory",
        "--default-model-weights-storage-class",
        "PRESET_REGISTRY_NAME=mcr.microsoft.com/aks/kaito",
    ]


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.name)
def test_each_gate_of_upstream_is_treated_as_in_the_table(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [f"--feature-gates={gate.name}=true"]
    if gate.support is Support.REJECTED:
        with pytest.raises(SystemExit):
            parse(argv, {})
        assert f"{gate.name} is not implemented by this controller: {gate.reason}" in capsys.readouterr().err
        return
    notes = parse(argv, {}).notes
    assert bool(notes) is (gate.support is Support.ACCEPTED)
    assert all(gate.reason in note for note in notes)


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_each_flag_of_upstream_is_treated_as_in_the_table(flag: Flag) -> None:
    value = {"--zap-log-level": "info", "--zap-encoder": "json", "--zap-devel": "false", "--v": "0"}
    notes = parse([f"{flag.name}={value.get(flag.name, 'something')}"], {}).notes

    assert [note for note in notes if note.startswith(flag.name)] == (
        [f"{flag.name} has no effect: {flag.reason}"] if flag.support is Support.ACCEPTED else []
    )
    if flag.default:
        assert parse([f"{flag.name}={flag.default}"], {}).notes == ()


@pytest.mark.parametrize(
    ("argv", "level", "form"),
    [
        (["--zap-log-level=debug"], "debug", "json"),
        (["--zap-log-level", "error"], "error", "json"),
        (["--zap-log-level=5"], "debug", "json"),
        (["--zap-log-level=panic"], "error", "json"),
        (["--zap-encoder=console"], "info", "console"),
        (["--zap-devel"], "debug", "console"),
        (["--zap-devel=true", "--zap-log-level=info", "--zap-encoder=json"], "info", "json"),
        (["--zap-devel=false"], "info", "json"),
        (["-v", "4"], "debug", "json"),
        (["--v=0"], "info", "json"),
        (["--log-level=warning"], "warning", "json"),
    ],
)
def test_upstreams_log_flags_set_level_and_format(argv: list[str], level: str, form: str) -> None:
    manager = parse(argv, {}).manager

    assert (manager.log_level, manager.log_format) == (level, form)


@pytest.mark.parametrize(
    ("argv", "environment", "words"),
    [
        (["--zap-log-level=loud"], {}, "--zap-log-level=loud: use debug, info, error"),
        (["--zap-log-level=0"], {}, "--zap-log-level=0"),
        (["--zap-encoder=xml"], {}, "--zap-encoder=xml: use json or console"),
        (["--zap-devel=maybe"], {}, "neither true nor false"),
        (["--v=loud"], {}, "--v=loud: use a whole number"),
        ([], {"WEBHOOK_PORT": "many"}, "WEBHOOK_PORT is 'many': use a port from 1 to 65535"),
        ([], {"WEBHOOK_PORT": "70000"}, "WEBHOOK_PORT is '70000'"),
    ],
)
def test_values_that_upstream_rejects_are_rejected(
    argv: list[str], environment: dict[str, str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(argv, environment)
    assert words in capsys.readouterr().err


def test_the_machine_eras_gate_means_node_claims() -> None:
    assert parse(["--feature-gates=Karpenter=true"], {}).workspace.node_api is NodeApi.NODECLAIM
    assert parse(["--feature-gates=Karpenter=false"], {}).workspace.node_api is NodeApi.MACHINE


def test_a_service_called_webhook_does_not_choose_the_port() -> None:
    """Kubernetes sets `<SERVICE>_PORT=tcp://address:port` in every pod of the Service's namespace."""
    assert parse([], {"WEBHOOK_PORT": "tcp://10.0.0.7:443"}).manager.webhook_port == 9443
    assert parse([], {"WEBHOOK_PORT": "9444"}).manager.webhook_port == 9444
    assert parse(["--webhook-port=9445"], {"WEBHOOK_PORT": "9444"}).manager.webhook_port == 9445


def test_the_metrics_port_can_be_secured(capsys: pytest.CaptureFixture[str]) -> None:
    assert not parse([], {}).manager.metrics_secure
    secured = parse(["--metrics-secure", "--metrics-cert-path=/certs"], {}).manager
    assert secured.metrics_secure
    assert secured.metrics_cert_dir == Path("/certs")
    with pytest.raises(SystemExit):
        parse(["--metrics-cert-path=/certs"], {})
    assert "metrics_cert_dir has no effect without metrics_secure" in capsys.readouterr().err
