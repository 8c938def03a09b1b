"""Names and columns of the CRDs, as `kubectl get` shows them."""

from test.unit.api.crd_server import (
    definition,
)


def test_the_names_are_those_of_upstream() -> None:
    spec = definition("workspaces")["spec"]
    assert (spec["group"], spec["scope"]) == ("kaito.sh", "Namespaced")
    assert spec["names"]["shortNames"] == ["wk", "wks"]
    assert spec["names"]["categories"] == ["workspace"]
    assert [(v["name"], v["served"], v["storage"]) for v in spec["versions"]] == [
        ("v1alpha1", True, False),
        ("v1beta1", True, True),
    ]
    for plural, version in (("machines", "v1alpha5"), ("nodeclaims", "v1")):
        spec = definition(plural)["spec"]
        assert (spec["group"], spec["scope"], spec["names"]["categories"]) == ("karpenter.sh", "Cluster", ["karpenter"])
        assert [(v["name"], v["storage"]) for v in spec["versions"]] == [(version, True)]


def columns(plural: str) -> list[tuple[str, str, str, int]]:
    shown = definition(plural)["spec"]["versions"][-1]["additionalPrinterColumns"]
    return [(c["name"], c["type"], c["jsonPath"], c.get("priority", 0)) for c in shown]


def condition(name: str, priority: int = 0) -> tuple[str, str, str, int]:
    return name, "string", f'.status.conditions[?(@.type=="{name}")].status', priority


TYPE = ("Type", "string", r".metadata.labels.node\.kubernetes\.io/instance-type", 0)
ZONE = ("Zone", "string", r".metadata.labels.topology\.kubernetes\.io/zone", 0)
NODE = ("Node", "string", ".status.nodeName", 0)
AGE = ("Age", "date", ".metadata.creationTimestamp", 0)
CAPACITY = r".metadata.labels.karpenter\.sh/capacity-type"


def test_the_columns_of_kubectl_get() -> None:
    assert columns("workspaces") == [
        ("Instance", "string", ".resource.instanceType", 0),
        condition("ResourceReady"),
        condition("InferenceReady"),
        condition("WorkspaceReady"),
        condition("JobStarted", 1),
        condition("WorkspaceSucceeded", 1),
        ("TargetNodeCount", "integer", ".status.targetNodeCount", 1),
        ("State", "string", ".status.state", 1),
        ("Replicas", "integer", ".status.replicas", 1),
        AGE,
    ]
    assert columns("machines") == [
        TYPE,
        ZONE,
        NODE,
        condition("Ready"),
        AGE,
        ("Capacity", "string", CAPACITY, 1),
        ("Provisioner", "string", r".metadata.labels.karpenter\.sh/provisioner-name", 1),
        ("Template", "string", ".spec.machineTemplateRef.name", 1),
    ]
    assert columns("nodeclaims") == [
        TYPE,
        ("Capacity", "string", CAPACITY, 0),
        ZONE,
        NODE,
        condition("Ready"),
        AGE,
        ("ImageID", "string", ".status.imageID", 1),
        ("ID", "string", ".status.providerID", 1),
        ("NodePool", "string", r".metadata.labels.karpenter\.sh/nodepool", 1),
        ("NodeClass", "string", ".spec.nodeClassRef.name", 1),
    ]


def test_both_versions_of_a_workspace_show_the_same_columns() -> None:
    alpha, beta = definition("workspaces")["spec"]["versions"]
    assert alpha["additionalPrinterColumns"] == beta["additionalPrinterColumns"]
    assert alpha["schema"] == beta["schema"]
