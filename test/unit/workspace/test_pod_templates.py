"""Pod templates, volumes and selectors that cannot run are rejected before a claim is created."""

from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import Workspace, labels
from kaito.runtime.errors import Invalid
from kaito.runtime.kinds import ConfigMap, Event, Node, PersistentVolumeClaim, Secret, ServiceAccount, StatefulSet
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.testing import builders
from kaito.workspace.preflight import validate_workspace
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from test.unit.workspace.input_cases import PUSH, TOKEN, V100, Input, adapter, served, template, tuned

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

NAME = "in-given"
MINE = {"matchLabels": {"apps": NAME}}


@pytest.fixture
def node_api() -> NodeApi:
    return NodeApi.MACHINE


def workspace(part: dict[str, Any], **resource: Any) -> Workspace:
    manifest = Input("given", part, "", "").manifest()
    manifest["resource"] |= resource
    return Workspace.model_validate(manifest)


def limits(**amounts: Any) -> dict[str, Any]:
    return {"resources": {"limits": {name.replace("gpu", labels.NVIDIA_GPU): value for name, value in amounts.items()}}}


def errors(given: Workspace) -> str:
    found = validate_workspace(given, None, WorkspaceSettings())
    return "; ".join(str(violation) for violation in found if violation.severity == "error")


async def refusal(cluster: "Cluster", given: Workspace) -> str:
    """The condition's reason and message after ten minutes, without a claim and with one event."""
    cluster.apply(given)
    async with cluster.controller():
        await cluster.world.settle()
        await cluster.world.advance(600)
        assert cluster.claims() == []
        status, reason, message = cluster.conditions(NAME)["ResourceReady"]
        assert status == "False"
        assert [event.reason for event in cluster.world.list(Event) if event.type == "Warning"] == [reason]
        return f"{reason}: {message}"


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"output": {"volumeSource": {"emptyDir": {}}}}, "output.volumeSource.emptyDir: is deleted with the pod"),
        ({"input": {"volumeSource": {"emptyDir": {}}}}, "input.volumeSource.emptyDir: is empty when the run starts"),
    ],
)
def test_a_tuning_volume_that_does_not_outlive_the_pod_is_a_warning(part: dict[str, Any], words: str) -> None:
    """The run works, for a trial; its result is lost, or it has no data."""
    given = workspace(tuned(**part))
    (found,) = validate_workspace(given, None, WorkspaceSettings())
    assert found.severity == "warning"
    assert words in str(found)


def zones(*terms: list[str]) -> dict[str, Any]:
    """A required affinity with a term for each list of zones; an empty one selects every node with the label `apps`."""
    zone = labels.ZONE
    expressions = [
        {"key": zone, "operator": "In", "values": term} if term else {"key": "apps", "operator": "Exists"}
        for term in terms
    ]
    selector = {"nodeSelectorTerms": [{"matchExpressions": [each]} for each in expressions]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": selector}}


CONTAINER = {"name": "other", "image": "registry.example.com/other:1"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (template(container=limits(gpu=-1)), "limits[nvidia.com/gpu]: is -1: an amount cannot be negative"),
        (template(container=limits(gpu="500m")), "limits[nvidia.com/gpu]: is 500m: use a whole number of devices"),
        (
            template(container={"resources": {"requests": {labels.NVIDIA_GPU: 1}}}),
            "the limit is missing: set limits",
        ),
        (
            template(container={"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}}),
            "requests[cpu]: is 2, more than the limit 1",
        ),
        (template(container={"name": "My_C"}), "containers[0].name: 'My_C' is not a name"),
        (template(initContainers=[CONTAINER | {"name": "server"}]), "containers[0].name: 'server' is used twice"),
        (template(container={"ports": [{"containerPort": 99999}]}), "ports[0].containerPort: is 99999"),
        (template(container={"imagePullPolicy": "always"}), "imagePullPolicy: 'always' is not allowed: use Always"),
        (template(container={"env": [{"name": "", "value": "x"}]}), "env[0].name: '' is not the name"),
        (template(container={"volumeMounts": [{"name": "d", "mountPath": "/d"}]}), "'d' is not a volume"),
        (template(volumes=[{"name": "D", "emptyDir": {}}]), "volumes[0].name: 'D' is not a name"),
        (template(volumes=[{"name": "d", "image": {"reference": "!x"}}]), "volumes[0].image.reference: '!x' is not"),
        (template(terminationGracePeriodSeconds=-1), "terminationGracePeriodSeconds: is -1"),
        (template(terminationGracePeriodSeconds=10**30), "terminationGracePeriodSeconds: is 1000"),
        (template(activeDeadlineSeconds=60), "activeDeadlineSeconds: is not allowed"),
        (template(tolerations=[{"key": "a", "operator": "equals"}]), "tolerations[0].operator: 'equals'"),
        (template(nodeSelector={"topology.kubernetes.io/zone": "a b"}), "'a b' is not the value of a label"),
        (
            {"inference": {"template": template()["inference"]["template"] | {"spce": {}}}},
            "inference.template.spce: is not a field of a pod template",
        ),
        (
            {"inference": {"template": template()["inference"]["template"] | {"metadata": {"labels": {"a b": "c"}}}}},
            "metadata.labels: 'a b' is not the key of a label",
        ),
        (
            {
                "inference": {
                    "template": template()["inference"]["template"] | {"metadata": {"labels": {labels.WORKSPACE: "x"}}}
                }
            },
            f"metadata.labels[{labels.WORKSPACE}]: is set by the controller",
        ),
        (adapter(volumeSource={"nonsense": None}), "volumeSource: has no source"),
        (adapter(volumeSource={"image": {"reference": "Data:1"}}), "image.reference: 'Data:1' is not"),
    ],
)
async def test_invalid_templates_are_rejected_at_admission_and_by_the_controller(
    cluster: "Cluster", given: dict[str, Any], words: str
) -> None:
    cluster.world.put(Secret.model_validate(PUSH))
    assert words in errors(workspace(given))
    assert words in await refusal(cluster, workspace(given))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (template(initContainers=[CONTAINER | limits(gpu=16)]), "requests 16 nvidia.com/gpu"),
        (template(overhead={"cpu": "9999"}), "requests 9999 cpu"),
        (template(resources={"requests": {"cpu": "9999"}}), "requests 9999 cpu"),
        (template(container={"resources": {"requests": {"ephemeral-storage": "100Ti"}}}), "ephemeral-storage"),
        (template(container={"resources": {"limits": {"nvidia.com/mig-1g.10gb": 1}}}), "new nodes have whole GPUs"),
        (template(nodeSelector={"mine": "x"}), "nodeSelector[mine]: is a label that no new node has"),
        (
            template(
                affinity={
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [{"matchExpressions": [{"key": "mine", "operator": "Exists"}]}]
                        }
                    }
                }
            ),
            "mine Exists, no new node has that label",
        ),
        (
            template(affinity=zones(["eastus-1"], ["eastus-2"])),
            "are eastus-1, eastus-2, but new nodes can be in any zone: set resource.zones instead",
        ),
    ],
)
async def test_requests_that_no_new_node_satisfies_create_no_claim(
    cluster: "Cluster", given: dict[str, Any], words: str
) -> None:
    assert words in await refusal(cluster, workspace(given))


async def test_required_zones_must_contain_those_of_new_nodes(cluster: "Cluster") -> None:
    given = template(affinity=zones(["eastus-1"]))
    words = "are eastus-1, but new nodes can be in 1, 2: set resource.zones instead"
    assert words in await refusal(cluster, workspace(given, zones=["1", "2"]))


@pytest.mark.parametrize(
    "spec",
    [
        {"nodeSelector": None, "restartPolicy": None, "volumes": [{"name": "d", "emptyDir": None}]},
        {"nodeSelector": {"agentpool": "mine", "topology.kubernetes.io/zone": "0", "apps": NAME}},
        {"container": limits(gpu=1), "initContainers": [CONTAINER | limits(gpu=1)]},
        {"affinity": zones(["eastus-1"], [])},
    ],
)
async def test_a_template_that_can_run_gets_its_node(cluster: "Cluster", spec: dict[str, Any]) -> None:
    """In the Kubernetes API a null member is an absent one."""
    given = workspace(template(**spec))
    assert errors(given) == ""
    cluster.apply(given)
    async with cluster.controller():
        await cluster.world.settle()
        cluster.join(cluster.claim())
        await cluster.world.settle()
        assert cluster.world.find(StatefulSet, NAME) is not None


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ({"key": "kubernetes.io/os", "operator": "In", "values": ["windows"]}, "has 'linux'"),
        ({"key": "mine", "operator": "Exists"}, "has no such label"),
        ({"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["1"]}, "set resource.zones instead"),
        ({"key": "topology.kubernetes.io/zone", "operator": "Exists"}, ""),
        ({"key": "mine", "operator": "DoesNotExist"}, ""),
        ({"key": "apps", "operator": "In", "values": [NAME, "other"]}, ""),
    ],
)
def test_a_selector_that_no_new_node_satisfies_is_rejected(expression: dict[str, Any], words: str) -> None:
    """The pods require every expression: a node that does not satisfy them would be paid for and stay empty."""
    given = workspace(template(), labelSelector=MINE | {"matchExpressions": [expression]})
    assert bool(errors(given)) is bool(words)
    assert words in errors(given)
    preferring = workspace(
        template(), labelSelector=MINE | {"matchExpressions": [expression]}, preferredNodes=["node-a"]
    )
    assert errors(preferring) == ""


@pytest.mark.parametrize(
    ("given", "words", "missing"),
    [
        (
            template(volumes=[{"name": "d", "persistentVolumeClaim": {"claimName": "absent"}}]),
            "volumes[0].persistentVolumeClaim.claimName: PersistentVolumeClaim 'absent' does not exist",
            PersistentVolumeClaim,
        ),
        (
            adapter(volumeSource={"persistentVolumeClaim": {"claimName": "absent"}}),
            "volumeSource.persistentVolumeClaim.claimName: PersistentVolumeClaim 'absent' does not exist",
            PersistentVolumeClaim,
        ),
        (
            template(serviceAccountName="absent"),
            "serviceAccountName: ServiceAccount 'absent' does not exist",
            ServiceAccount,
        ),
        (
            template(volumes=[{"name": "d", "azureFile": {"shareName": "x", "secretName": "absent"}}]),
            "azureFile.secretName: Secret 'absent' does not exist",
            Secret,
        ),
        (
            template(volumes=[{"name": "d", "csi": {"driver": "x", "nodePublishSecretRef": {"name": "absent"}}}]),
            "csi.nodePublishSecretRef.name: Secret 'absent' does not exist",
            Secret,
        ),
    ],
)
async def test_what_a_pod_needs_is_waited_for_without_a_node(
    cluster: "Cluster", given: dict[str, Any], words: str, missing: Any
) -> None:
    """It appears later, and the Workspace starts without an edit."""
    assert words in await refusal(cluster, workspace(given))
    async with cluster.controller():
        await cluster.world.settle()
        cluster.world.put(missing(metadata=ObjectMeta(name="absent")))
        await cluster.world.advance(11)
        assert len(cluster.claims()) == 1


def push(config: str) -> Secret:
    return Secret(metadata=ObjectMeta(name="push")).with_value(".dockerconfigjson", config.encode())


@pytest.mark.parametrize(
    ("config", "image", "words"),
    [
        ('{"auths": {"other.io": {"username": "u"}}}', "registry.example.com/a:1", "credentials only for other.io"),
        ('{"auths": {"registry.example.com": "text"}}', "registry.example.com/a:1", "no user name and password"),
        ('{"auths": {"registry.example.com": {"auth": "%%"}}}', "registry.example.com/a:1", "no user name"),
        ('{"auths": {"https://registry.example.com/team": {"auth": "dTpw"}}}', "registry.example.com/x/a:1", "only"),
        ('{"auths": {"https://registry.example.com/team": {"auth": "dTpw"}}}', "registry.example.com/team/a:1", ""),
        ('{"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}}}', "team/a:1", ""),
        ('{"auths": {"registry.example.com:5000": {"auth": "dTpw"}}}', "registry.example.com:5000/a", ""),
        ("{}", "registry.example.com/a:1", ""),
    ],
)
async def test_the_push_secret_opens_the_registry_that_is_pushed_to(
    cluster: "Cluster", config: str, image: str, words: str
) -> None:
    """Otherwise the run fails at its end, or at its start on a paid node."""
    cluster.world.put(push(config))
    given = workspace(tuned(output={"image": image, "imagePushSecret": "push"}))
    if words:
        assert words in await refusal(cluster, given)
        return
    cluster.apply(given)
    async with cluster.controller():
        await cluster.world.settle()
        assert len(cluster.claims()) == 1


@pytest.mark.parametrize("value", [b"", b"  \n"])
async def test_an_empty_token_is_not_tried_on_a_paid_node(cluster: "Cluster", value: bytes) -> None:
    cluster.world.put(Secret.model_validate(TOKEN).with_value("HF_TOKEN", value))
    given = workspace(
        {"inference": {"preset": {"name": "llama-3.1-8b-instruct", "presetOptions": {"modelAccessSecret": "token"}}}}
    )
    assert "SecretInvalid: " in await refusal(cluster, given)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://minio.my-data/d", "points inside the cluster"),
        ("http://kubernetes.default/d", "points inside the cluster"),
        ("http://minio.team1/d", "points inside the cluster"),
        ("http://localhost.localdomain/d", "not the node or its metadata"),
        ("http://[2002:a9fe:a9fe::]/d", "not the node or its metadata"),
        ("http://[64:ff9b::a9fe:a9fe]/d", "not the node or its metadata"),
        ("http://[2002:0a00:0001::]/d", "points inside the cluster"),
        ("https://*.example.com/d", "'*.example.com' is not the name of a host"),
        ("https://example..com/d", "is not the name of a host"),
        ("http://10.0.0.1%2f/d", "is not the name of a host"),
        ("https://example.com/a b", "contains white space"),
        ("https://exa\nmple.com/d", "contains white space"),
        ("https://user:secret@example.com/d", ""),
        ("https://bücher.example/d", ""),
        ("https://my_bucket.s3.amazonaws.com/d", ""),
        ("https://example.com./d", ""),
        ("https://xn--e1afmkfd.xn--p1ai/d", ""),
    ],
)
def test_names_of_the_cluster_in_data_urls(url: str, words: str) -> None:
    """A Service is also reached as name.namespace."""
    found = errors(workspace(tuned(input={"urls": [url]})))
    assert bool(found) is bool(words)
    assert words in found


async def test_a_context_beyond_the_models_is_rejected_for_transformers_too(cluster: "Cluster") -> None:
    given = served("transformers: {max_model_len: 9999999}", "mine", "phi-3-mini-4k-instruct")
    cluster.world.put(ConfigMap.model_validate(given["objects"][0]))
    message = await refusal(cluster, workspace(given["part"], instanceType=V100))
    assert "inference.config[transformers.max_model_len]: is 9999999, which exceeds the model's maximum" in message


async def test_a_device_that_no_existing_node_has_is_rejected(cluster: "Cluster") -> None:
    """They may be partitioned, and then they show it."""
    given = workspace(template(container={"resources": {"limits": {"nvidia.com/mig-1g.10gb": 1}}}), instanceType="")
    node = builders.node("node-a", labels={"apps": NAME}, capacity={labels.NVIDIA_GPU: "1"}, ready=True)
    cluster.world.put(node)
    cluster.apply(given)
    async with cluster.controller(WorkspaceSettings(node_api=NodeApi.BYO)):
        await cluster.world.settle()
        assert "requests 1 nvidia.com/mig-1g.10gb, the nodes" in cluster.conditions(NAME)["ResourceReady"][2]
        amounts = {"nvidia.com/mig-1g.10gb": "7"}
        cluster.world.patch(
            Node, "node-a", {"status": {"capacity": amounts, "allocatable": amounts}}, subresource="status"
        )
        await cluster.world.advance(15)
        assert cluster.world.find(StatefulSet, NAME) is not None


@pytest.mark.parametrize("count", [0, -1, 129, 2**31, 2**63, 10**30])
async def test_an_impossible_count_is_rejected_by_the_schema(cluster: "Cluster", count: int) -> None:
    """Also a number that has no place in 64 bits."""
    document = workspace(template()).to_dict()
    document["resource"]["count"] = count
    with pytest.raises(Invalid, match=r"resource\.count"):
        cluster.world.put(Workspace.model_validate(document))


def test_the_work_of_the_checks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Admission runs in the event loop of the controller, and a user decides what is in the object."""
    compared: list[str] = []

    def compare(name: str, *_: object, **__: object) -> list[str]:
        compared.append(name)
        return []

    monkeypatch.setattr("kaito.workspace.preflight.template.get_close_matches", compare)
    monkeypatch.setattr("kaito.api.workspace.validation.annotations.get_close_matches", compare)
    unknown = {f"unknown{number}": "x" for number in range(5_000)}
    container = {"name": "a", "image": "b"}
    assert errors(workspace({"inference": {"template": {"spec": {"containers": [container], **unknown}}}})) == ""
    many = [{**container, f"unknown{number}": "x"} for number in range(5_000)]
    assert "inference.template: has more than 10000 values" in errors(
        workspace({"inference": {"template": {"spec": {"containers": many}}}})
    )
    preset = {"inference": {"preset": {"name": "phi-3-mini-4k-instruct"}}}
    annotated = workspace(preset).with_metadata(annotations={f"kaito.sh/{name}": "" for name in unknown})
    found = validate_workspace(annotated, None, WorkspaceSettings())
    assert len([each for each in found if "is not an annotation of Workspaces" in each.message]) == 20
    assert len(compared) <= 100
    listed = [f"Standard_NC24ads_A100_v{number}" for number in range(5_000)]
    found = validate_workspace(workspace(preset, instanceType="", instanceTypes=listed), None, WorkspaceSettings())
    assert len(found) < 40
