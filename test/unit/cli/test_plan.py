"""`kaito plan`: input, formats, prices, exit codes; compared with a cluster by `--cluster`."""

import io
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from kaito.api import Workspace
from kaito.cli.main import main
from kaito.cli.plan import command
from kaito.planning import documents
from kaito.planning.comparison import LiveComparison
from kaito.planning.documents import InputError, read_documents
from kaito.planning.style import Style
from kaito.prices.azure_retail import Found, PricesUnavailable
from kaito.prices.book import PriceBook
from kaito.prices.price import Offering, Price
from kaito.runtime.kinds import ConfigMap, Deployment, Node, Service, ServicePort, ServiceSpec
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.testing import World, builders
from kaito.workspace.measurements import NAME
from kaito.workspace.preview import Observed
from test.unit.workspace.test_measurements import A10, MODEL, record

ROOT = Path(__file__).resolve().parents[3]
SAMPLE = str(ROOT / "config" / "samples" / "workspace-phi-3-mini.yaml")
A100 = "Standard_NC24ads_A100_v4"


def workspace(name: str = "w", **parts: Any) -> dict[str, Any]:
    return {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": name},
        "resource": {"instanceType": A100, "labelSelector": {"matchLabels": {"apps": name}}},
        "inference": {"preset": {"name": "phi-4-mini-instruct"}},
        **parts,
    }


def config(text: str, name: str = "c") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"inference_config.yaml": text},
    }


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exited:
        main(["plan", *arguments])
    return int(exited.value.code or 0)


def planned(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    assert run(*arguments, "-o", "json") == code
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    plans: list[dict[str, Any]] = data["plans"]
    return plans


def test_the_sample_is_planned_with_memory_price_and_objects(capsys: pytest.CaptureFixture[str]) -> None:
    (plan,) = planned(capsys, "-f", SAMPLE, "--region", "eastus")
    assert plan["result"] == "planned"
    assert plan["model"]["preset"] == "phi-3-mini-4k-instruct"
    assert (plan["nodes"]["count"], plan["nodes"]["instanceType"]) == (1, "Standard_NC6s_v3")
    memory = plan["memoryPerGPU"]
    assert memory["total"] == 16 * 2**30
    parts = ("weights", "adapters", "state", "keyValueCache", "overhead", "free")
    assert abs(sum(memory[name] for name in parts) - memory["usable"]) <= len(parts)
    price = plan["price"]
    assert (price["perHour"], price["perMonth"], price["currency"]) == (3.06, 2233.8, "USD")
    assert price["asOf"] is None
    assert [each["object"]["kind"] for each in plan["objects"]] == ["Machine", "Service", "Service", "StatefulSet"]
    machine = plan["objects"][0]["object"]["metadata"]
    assert (machine["generateName"], "name" in machine) == ("ws", False)
    assert "00000000" not in json.dumps(plan)


def test_text_has_bars_and_no_control_characters_when_it_is_not_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-f", SAMPLE, "--region", "westus2") == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out
    assert "weights  ##############" in out
    assert "price    3.06 USD per hour, 2,233.80 USD per month" in out
    assert all(len(line) <= 110 for line in out.splitlines())


def test_yaml_and_json_contain_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    plans = planned(capsys, "-f", SAMPLE)
    assert run("-f", SAMPLE, "-o", "yaml") == 0
    assert yaml.safe_load(capsys.readouterr().out)["plans"] == plans


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_blocks_and_colors_unless_it_cannot_show_them() -> None:
    assert Style.of(Terminal(), {}) == Style(colors=True, blocks=True)
    assert Style.of(Terminal(), {"NO_COLOR": "1"}) == Style(colors=False, blocks=True)
    assert Style.of(Terminal(), {"TERM": "dumb"}) == Style()
    assert Style.of(io.StringIO(), {}) == Style()
    style = Style(colors=True, blocks=True)
    assert style.paint("x", "red") == "\x1b[31mx\x1b[0m"
    assert (style.bar(0.5), style.bar(0.001), style.bar(0), style.bar(2)) == ("█" * 15, "█", "", "█" * 30)


def test_documents_are_mixed_and_come_from_files_folders_and_stdin(
    written: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = yaml.safe_dump(config("vllm: {max-model-len: 4096}"))
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    listed = {
        "apiVersion": "v1",
        "kind": "List",
        "items": [workspace("w", inference={"preset": {"name": "phi-4-mini-instruct"}, "config": "c"})],
    }
    written(listed, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "other"}})
    documents = read_documents([str(tmp_path), "-"], io.StringIO(text))
    assert [source.workspace.name for source in documents.workspaces] == ["w"]
    assert documents.ignored == ["Deployment other"]
    (plan,) = planned(capsys, "-f", str(tmp_path))
    assert plan["notes"] == ["ConfigMap 'c' was not checked: not in the files"]
    assert "not checked" not in json.dumps(_plan_with(documents))


def _plan_with(documents: Any) -> list[dict[str, Any]]:
    import asyncio

    from kaito.cli.main import parser
    from kaito.planning.report import as_data
    from kaito.workspace.flags import parse

    arguments = parser().parse_args(["plan", "-f", "-"])
    reports = asyncio.run(command.plan_documents(documents, parse([], {}), arguments))
    found = [as_data(report) for report in reports]
    assert "--max-model-len=4096" in json.dumps(found)
    return found


def test_secrets_of_the_files_are_checked(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    gated = {"preset": {"name": "llama-3.1-8b-instruct", "presetOptions": {"modelAccessSecret": "token"}}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token"}}
    given = written(workspace(inference=gated), {**secret, "stringData": {"HF_TOKEN": "x"}})
    assert planned(capsys, "-f", given)[0]["result"] == "planned"
    empty = written(workspace(inference=gated), {**secret, "data": {"other": "eA=="}})
    (plan,) = planned(capsys, "-f", empty, code=1)
    assert plan["errors"][0]["reason"] == "SecretInvalid"
    assert plan["errors"][0]["field"] == "inference.preset.presetOptions.modelAccessSecret"
    other = written(workspace(inference=gated), {**secret, "metadata": {"name": "token", "namespace": "other"}})
    assert planned(capsys, "-f", other)[0]["notes"] == ["Secret 'token' was not checked: not in the files"]


def test_every_refusal_has_field_and_remedy_and_no_objects(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bad = workspace(
        "Bad",
        inference={"preset": {"name": "phi-4-mini"}},
        resource={"instanceType": "Standard_NC6s_v33", "labelSelector": {}},
    )
    (plan,) = planned(capsys, "-f", written(bad), code=1)
    assert plan["result"] == "refused"
    assert {error["field"] for error in plan["errors"]} >= {
        "metadata.name",
        "resource.labelSelector",
        "inference.preset.name",
        "resource.instanceType",
    }
    assert "objects" not in plan
    assert "price" not in plan
    assert run("-f", written(bad)) == 1
    out = capsys.readouterr().out
    assert "Workspace default/Bad: refused" in out
    assert "error    inference.preset.name: 'phi-4-mini' is not a preset" in out


def test_a_field_that_does_not_exist_is_a_warning(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    typo = workspace(resource={"instanceType": A100, "labelSelector": {"matchLabels": {"a": "b"}}, "counts": 2})
    (plan,) = planned(capsys, "-f", written(typo))
    assert [warning["field"] for warning in plan["warnings"]] == ["resource.counts"]


def test_a_value_that_the_schema_does_not_allow_is_a_refusal(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = workspace("wrong", resource={"count": "two", "instanceType": A100})
    plans = planned(capsys, "-f", written(wrong, workspace("right")), code=1)
    assert [plan["result"] for plan in plans] == ["refused", "planned"]
    assert [(error["field"], error["message"]) for error in plans[0]["errors"]] == [
        ("resource.count", "should be a valid integer, unable to parse string as an integer"),
        ("resource.labelSelector", "is missing: set it"),
    ]


def test_one_refusal_among_several_gives_exit_code_1(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    given = written(workspace("one"), workspace("two", resource={"instanceType": "x"}))
    assert [plan["result"] for plan in planned(capsys, "-f", given, code=1)] == ["planned", "refused"]


def inference_set(**spec: Any) -> dict[str, Any]:
    resource = {"instanceType": "Standard_NC6s_v3"}
    template = {"resource": resource, "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}}}
    given = {"replicas": 3, "labelSelector": {"matchLabels": {"apps": "phi"}}, "template": template, **spec}
    return {"apiVersion": "kaito.sh/v1alpha1", "kind": "InferenceSet", "metadata": {"name": "phi"}, "spec": given}


def test_a_set_is_planned_as_its_workspaces(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    given = written(inference_set())
    (plan,) = planned(capsys, "-f", given, "--region", "eastus")
    assert plan["workspace"]["name"] == "phi-0"
    assert plan["inferenceSet"].pop("price")["perHour"] == 3 * plan["price"]["perHour"]
    assert plan["inferenceSet"] == {"name": "phi", "namespace": "default", "replicas": 3, "workspaces": 3, "nodes": 3}
    assert run("-f", given, "--region", "eastus") == 0
    text = capsys.readouterr().out
    assert text.startswith("InferenceSet default/phi: planned\n")
    assert "set      3 Workspaces, 3 nodes in all, 9.18 USD per hour" in text


def test_the_node_limit_of_a_set_limits_its_workspaces(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    given = written(inference_set(nodeCountLimit=2))
    assert planned(capsys, "-f", given)[0]["inferenceSet"]["workspaces"] == 2
    assert run("-f", given) == 0
    assert "set      2 Workspaces of 3, because of nodeCountLimit, 2 nodes in all" in capsys.readouterr().out


def test_rules_of_sets_and_unknown_fields_are_reported(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = inference_set(autoscaling={"minReplicas": 0}, replica=4)
    (plan,) = planned(capsys, "-f", written(wrong), code=1)
    assert [each["field"] for each in plan["errors"]] == ["spec.autoscaling.minReplicas"]
    assert [each["field"] for each in plan["warnings"]] == ["spec.replica"]
    assert "is not a field of an InferenceSet" in plan["warnings"][0]["message"]


def test_flags_of_the_controller_change_the_plan(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--node-api=nodeclaim", "--image-registry", "registry.example.com/k")
    assert run("-f", written(workspace()), "-o", "json", "--", *flags) == 0
    (plan,) = json.loads(capsys.readouterr().out)["plans"]
    assert plan["objects"][0]["object"]["kind"] == "NodeClaim"
    assert plan["model"]["image"].startswith("registry.example.com/k/kaito-vllm:")


def test_region_and_prices_of_the_controller_are_used(
    written: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table"
    table.write_text(f"prices: [{{region: eastus, instanceType: {A100}, onDemand: 2}}]")
    given = written(workspace())
    assert run("-f", given, "-o", "json", "--", "--region=eastus", f"--price-table={table}") == 0
    (plan,) = json.loads(capsys.readouterr().out)["plans"]
    assert (plan["price"]["perHour"], plan["price"]["source"]) == (2.0, str(table))
    assert run("-f", given, "--", "--price-table=/absent") == 2
    assert "/absent: cannot be read" in capsys.readouterr().err


def test_existing_nodes_come_from_the_files_and_cost_nothing_new(
    written: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n", "labels": {"apps": "w", "node.kubernetes.io/instance-type": A100}},
    }
    own = workspace(resource={"labelSelector": {"matchLabels": {"apps": "w"}}})
    assert run("-f", written(own, node), "-o", "json", "--", "--node-api=byo") == 0
    (plan,) = json.loads(capsys.readouterr().out)["plans"]
    assert "price" not in plan
    assert [each["object"]["kind"] for each in plan["objects"]] == ["Service", "Service", "StatefulSet"]
    assert run("-f", written(own), "--", "--node-api=byo") == 2
    assert "add the output of `kubectl get nodes -o yaml`, or use --cluster" in capsys.readouterr().err


def test_an_unknown_price_is_stated_and_never_0(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    given = written(workspace())
    (plan,) = planned(capsys, "-f", given)
    assert plan["price"]["unknown"] == "no region is named"
    assert plan["price"]["nodePerHourByRegion"]["eastus"] == 3.673
    (abroad,) = planned(capsys, "-f", given, "--region", "norwayeast")
    assert abroad["price"] == {
        "unknown": f"no source has a price of {A100} in norwayeast (on-demand)",
        "region": "norwayeast",
        "nodePerHourByRegion": None,
    }
    assert run("-f", given) == 0
    assert "unknown: no region is named" in capsys.readouterr().out


def test_the_users_table_has_precedence_and_one_that_is_wrong_is_a_usage_error(
    written: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table"
    table.write_text(f"{{currency: EUR, prices: [{{region: '*', instanceType: {A100}, onDemand: 2, spot: 0.5}}]}}")
    given = written(
        workspace(resource={"instanceType": A100, "count": 3, "labelSelector": {"matchLabels": {"a": "b"}}})
    )
    (plan,) = planned(capsys, "-f", given, "--prices", str(table))
    assert (plan["price"]["perHour"], plan["price"]["currency"], plan["price"]["nodes"]) == (6.0, "EUR", 3)
    (spot,) = planned(capsys, "-f", given, "--prices", str(table), "--capacity-type", "spot")
    assert (spot["price"]["perHour"], spot["price"]["capacityType"]) == (1.5, "spot")
    table.write_text("prices: 3")
    assert run("-f", given, "--prices", str(table)) == 2
    assert "prices: should be a valid list" in capsys.readouterr().err


class FailingSource:
    async def find(self, offering: Offering) -> Found:
        raise PricesUnavailable("the price API returned status 503")


def test_a_price_api_that_fails_is_noted_and_the_table_is_used(
    written: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def book(_: Any, __: Any) -> AsyncGenerator[PriceBook]:
        yield PriceBook(living=FailingSource())

    monkeypatch.setattr(command, "_book", book)
    (plan,) = planned(capsys, "-f", written(workspace()), "--region", "eastus")
    assert plan["price"]["perHour"] == 3.673
    assert plan["notes"] == ["the price API returned status 503"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the files contain no Workspace"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: p}", "contain no Workspace and no InferenceSet; found Pod p"),
        ("a: [", "is not YAML at line"),
        ("- 1", "document 1: is not an object"),
        ("apiVersion: v1\nkind: Pod\nmetadata: text", "contain no Workspace and no InferenceSet; found Pod"),
        ("kind: Workspace", "has no apiVersion"),
        ("apiVersion: v1", "has no kind"),
        ("apiVersion: kaito.sh/v1beta1\nkind: Workspace\nresource: {}", "Workspace: metadata.name: is missing"),
        (
            "apiVersion: kaito.sh/v1\nkind: Workspace\nmetadata: {name: w}",
            "Workspace: apiVersion: is kaito.sh/v1, which is not served: use kaito.sh/v1beta1 or kaito.sh/v1alpha1",
        ),
        ("apiVersion: kaito.sh\nkind: InferenceSet\nmetadata: {name: w}", "InferenceSet: apiVersion: is kaito.sh,"),
    ],
)
def test_input_that_is_not_a_manifest_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    path = tmp_path / "given.yaml"
    path.write_text(text)
    assert run("-f", str(path)) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_files_that_cannot_be_read_and_wrong_flags_are_usage_errors(
    written: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = written(workspace(), workspace())
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        (("-f", "/absent.yaml"), "/absent.yaml: cannot be read: No such file"),
        (("-f", str(tmp_path / "empty")), "contains no file with the suffix"),
        (("-f", given), "was read before"),
        (("-f", SAMPLE, "stray"), "unexpected argument 'stray': name files with -f"),
        (("-f", SAMPLE, "--context", "c"), "have an effect only with --cluster"),
        (("-f", SAMPLE, "--", "--node-apis=x"), "unrecognized arguments"),
        (("-f", SAMPLE, "-o", "xml"), "invalid choice: 'xml'"),
        ((), "the following arguments are required: -f"),
    ):
        assert run(*arguments) == 2
        assert words in capsys.readouterr().err


def test_binary_files_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not UTF-8"):
        read_documents([str(path)], io.StringIO())


# -- with a cluster --


async def compare(*given: dict[str, Any], region: str = "") -> dict[str, Any]:
    (found,) = await compare_all(*given, region=region)
    return found


async def compare_all(*given: dict[str, Any], region: str = "") -> list[dict[str, Any]]:
    from kaito.cli.main import parser
    from kaito.planning.report import as_data
    from kaito.workspace.flags import parse

    arguments = parser().parse_args(["plan", "-f", "-", "--cluster", "--region", region])
    read = read_documents(["-"], io.StringIO(yaml.safe_dump_all(given)))
    return [as_data(report) for report in await command.plan_documents(read, parse([], {}), arguments)]


def actions(data: dict[str, Any]) -> list[str]:
    return [f"{each['action']} {each['object']['kind']}" for each in data["objects"]]


async def test_a_new_workspace_is_created_with_its_objects(live: World) -> None:
    live.put(builders.node("other", labels={"topology.kubernetes.io/region": "eastus"}))
    data = await compare(workspace())
    assert actions(data) == [
        "create Workspace",
        "create Machine",
        "create Service",
        "create Service",
        "create StatefulSet",
    ]
    assert (data["price"]["region"], data["price"]["perHour"]) == ("eastus", 3.673)
    assert live.list(Workspace) == []
    assert live.list(Service) == []


async def test_a_change_of_a_stored_workspace_is_shown_as_a_diff_or_refused(live: World) -> None:
    live.put(Workspace.model_validate(workspace() | {"metadata": {"name": "w", "namespace": "default"}}))
    same = await compare(workspace())
    assert actions(same)[0] == "unchanged Workspace"
    labeled = await compare(workspace() | {"metadata": {"name": "w", "labels": {"team": "a"}}})
    assert actions(labeled)[0] == "update Workspace"
    assert "+    team: a" in labeled["objects"][0]["diff"]
    assert "-" not in [line[:1] for line in labeled["objects"][0]["diff"].splitlines()[2:]]
    larger = {"instanceType": "Standard_NC48ads_A100_v4", "labelSelector": {"matchLabels": {"apps": "w"}}}
    refused = await compare(workspace(resource=larger))
    assert refused["result"] == "refused"
    assert refused["errors"][0]["field"] == "resource.instanceType"


async def test_a_foreign_object_of_the_same_name_is_a_conflict(live: World) -> None:
    ports = ServiceSpec(ports=[ServicePort(port=80)])
    live.put(Service(metadata=ObjectMeta(name="w", namespace="default"), spec=ports))
    data = await compare(workspace())
    assert "conflict Service" in actions(data)
    (conflict,) = [each for each in data["objects"] if each["action"] == "conflict"]
    assert "delete it, or give the workspace another name" in conflict["note"]


async def test_objects_of_the_files_have_precedence_over_those_of_the_cluster(live: World) -> None:
    live.put(ConfigMap.model_validate(config("vllm: [") | {"metadata": {"name": "c", "namespace": "default"}}))
    named = workspace(inference={"preset": {"name": "phi-4-mini-instruct"}, "config": "c"})
    assert (await compare(named))["errors"][0]["reason"] == "ConfigInvalid"
    assert (await compare(named, config("vllm: {max-model-len: 1024}")))["result"] == "planned"
    missing = await compare(workspace(inference={"preset": {"name": "phi-4-mini-instruct"}, "config": "d"}))
    assert "ConfigMap 'd' does not exist" in missing["errors"][0]["message"]


async def test_a_rule_of_the_api_server_refuses(live: World) -> None:
    """The schema of the CRD limits the number of copies; the rules that run locally do not."""
    data = await compare(
        workspace(resource={"instanceType": A100, "count": 100000, "labelSelector": {"matchLabels": {"a": "b"}}})
    )
    assert data["result"] == "refused"


def test_prices_are_decimal_and_not_rounded() -> None:
    price = Price(per_hour=Decimal("0.1"), currency="USD", capacity_type="spot", source="s")
    from kaito.workspace.cost import Cost

    assert str(Cost(nodes=3, price=price)) == "0.3 USD per hour, 219.00 USD per month"


async def test_nodes_in_two_regions_leave_the_region_unknown(live: World) -> None:
    for name in ("eastus", "westus"):
        live.put(builders.node(name, labels={"topology.kubernetes.io/region": name}))
    assert (await compare(workspace()))["price"]["unknown"] == "no region is named"
    assert len(live.list(Node)) == 2


def deployment(*arguments: str, name: str = "workspace-controller", image_registry: str = "") -> dict[str, Any]:
    own = {"app.kubernetes.io/name": "workspace-controller"}
    environment = [{"name": "IMAGE_REGISTRY", "value": image_registry}] if image_registry else []
    container = {"name": "controller", "image": "c:1", "args": list(arguments), "env": environment}
    pods = {"metadata": {"labels": own}, "spec": {"containers": [container]}}
    return {
        "metadata": {"name": name, "namespace": "default", "labels": own},
        "spec": {"selector": {"matchLabels": own}, "template": pods},
    }


async def test_the_settings_are_those_of_the_controller_in_the_cluster(live: World) -> None:
    flags = ("--node-api=nodeclaim", "--region", "eastus", "--pod-defaults", "/etc/kaito/d.yaml", "--log-level=debug")
    live.put(Deployment.model_validate(deployment(*flags, image_registry="r.example.com/k")))
    data = await compare(workspace())
    assert "create NodeClaim" in actions(data)
    assert data["model"]["image"].startswith("r.example.com/k/")
    assert data["price"]["region"] == "eastus"
    assert data["notes"] == ["--pod-defaults of the controller names a file of its pod, which was not read"]


async def test_the_plan_uses_what_servers_measured_if_the_user_may_read_it(live: World) -> None:
    live.put(Deployment.model_validate(deployment()))
    size = {"instanceType": A10, "labelSelector": {"matchLabels": {"apps": "w"}}}
    given = workspace(resource=size, inference={"preset": {"name": MODEL}})
    estimated = await compare(given)
    assert (estimated["nodes"]["count"], "measured" in estimated["model"]) == (2, False)
    text = record().model_dump_json(by_alias=True)
    live.put(ConfigMap(metadata=ObjectMeta(name=NAME, namespace="default"), data={"key": text}))
    measured = await compare(given)
    assert measured["nodes"]["count"] == 1
    assert measured["model"]["measured"].startswith("17.0 GiB on each GPU beside the key-value cache, estimated 21.")
    assert "warnings" not in measured, "they would name the estimated number of nodes"
    live.deny("get", ConfigMap, name=NAME)
    refused = await compare(given)
    assert refused["nodes"] == estimated["nodes"]
    assert refused["notes"][0].startswith("the memory that servers measured was not checked: configmaps ")


async def test_without_one_controller_the_defaults_are_assumed_with_a_note(live: World) -> None:
    (note,) = (await compare(workspace()))["notes"]
    assert note.startswith(
        "the defaults of the controller's settings are assumed, because no Deployments have the label"
    )
    for name in ("a", "b"):
        live.put(Deployment.model_validate(deployment(name=name)))
    assert "because 2 Deployments have the label" in (await compare(workspace()))["notes"][0]


async def test_flags_of_another_version_are_an_error(live: World) -> None:
    live.put(Deployment.model_validate(deployment("--flag-of-next-year")))
    with pytest.raises(InputError, match="Deployment default/workspace-controller are not those of this version"):
        await compare(workspace())


async def test_a_note_about_one_workspace_is_not_in_the_plan_of_the_next(
    live: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def observe(comparison: LiveComparison, workspace: Workspace) -> Observed:
        comparison.notes.append(f"about {workspace.name}")
        return Observed(nodes=live.list(Node))

    monkeypatch.setattr(LiveComparison, "observe", observe)
    first, second = await compare_all(workspace(), workspace("other"))
    assert len(first["notes"]) == len(second["notes"]) == 2
    assert (first["notes"][-1], second["notes"][-1]) == ("about w", "about other")


def test_input_that_is_too_large_is_not_cut(
    written: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = Path(written(workspace(), workspace("other"))).read_text()
    monkeypatch.setattr(documents, "MAX_BYTES", len(text) - 1)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert run("-f", "-") == 2
    assert "standard input: is larger than" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spec", "line", "claims"),
    [
        ({"replicas": 3}, "copies   3, each on a node", 3),
        ({"replicas": 0}, "copies   0: spec.replicas is 0, so that no node is used", 0),
        ({"autoscaling": {"minReplicas": 0, "idleSeconds": 60}}, "each on a node; none after 60 s without requests", 1),
        ({"replicas": 0, "autoscaling": {"minReplicas": 0}}, "copies   0: a request starts one", 0),
    ],
)
def test_the_plan_contains_the_copies(
    written: Any, capsys: pytest.CaptureFixture[str], spec: dict[str, Any], line: str, claims: int
) -> None:
    path = written(workspace(spec=spec))
    assert run("-f", path, "--region", "eastus") == 0
    text = capsys.readouterr().out
    assert line in text
    assert f"nodes    {claims} x Standard_NC24ads_A100_v4" in text
    (plan,) = planned(capsys, "-f", path)
    assert (plan["nodes"]["copies"], plan["nodes"]["toCreate"]) == (spec.get("replicas", 1), claims)
