"""The chart of the console: its values, and a role that allows no write besides reviews."""

from typing import Any

import pytest

from kaito.cli.main import parser
from test.charts.rendering import Objects, RenderError, template

DEPLOYMENT = ("Deployment", "kaito-console")


def rendered(**values: Any) -> Objects:
    return template("console", values=values)


def args(objects: Objects) -> list[str]:
    found: list[str] = objects[DEPLOYMENT]["spec"]["template"]["spec"]["containers"][0]["args"]
    return found


def test_the_objects_are_those_of_one_deployment() -> None:
    names = {"Deployment", "Service", "ServiceAccount", "NetworkPolicy", "ClusterRole", "ClusterRoleBinding"}
    assert set(rendered()) == {(kind, "kaito-console") for kind in names}
    assert ("NetworkPolicy", "kaito-console") not in rendered(networkPolicy={"enabled": False})


def test_the_role_writes_nothing_but_reviews() -> None:
    rules = rendered()["ClusterRole", "kaito-console"]["rules"]
    writes = {
        (verb, resource)
        for rule in rules
        for verb in rule["verbs"]
        for resource in rule["resources"]
        if verb not in {"get", "list", "watch"}
    }
    assert writes == {("create", "tokenreviews"), ("create", "subjectaccessreviews")}
    assert not any("secrets" in rule["resources"] or "*" in rule["resources"] for rule in rules)


def test_the_console_starts_with_the_flags_of_the_chart() -> None:
    flags = args(rendered(hosts=["console.example.com"], namespaces=["red", "blue"], allowWrites=True))
    parsed = parser().parse_args(["console", *flags])
    assert (parsed.in_cluster, parsed.address, parsed.allow_writes) == (True, "0.0.0.0", True)
    assert (parsed.host, parsed.namespace) == (["console.example.com"], ["red", "blue"])
    assert "--allow-writes" not in args(rendered(allowWrites=False))
    links = {"trace": "https://t.example.com/{trace_id}", "dashboard": "https://d.example.com", "alerts": "http://a"}
    linked = parser().parse_args(["console", *args(rendered(links=links))])
    assert [linked.trace_url, linked.dashboard_url, linked.alerts_url] == list(links.values())
    container = rendered()[DEPLOYMENT]["spec"]["template"]["spec"]["containers"][0]
    assert [port["containerPort"] for port in container["ports"]] == [parsed.port]


@pytest.mark.parametrize(
    "values",
    [{"hosts": ["https://console.example.com"]}, {"image": {"digest": "x"}}, {"typo": 1}, {"namespaces": ["A"]}],
)
def test_wrong_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(RenderError):
        rendered(**values)


def test_only_the_proxy_may_open_it_if_it_is_named() -> None:
    peer = [{"podSelector": {"matchLabels": {"app": "proxy"}}}]
    policy = rendered(networkPolicy={"from": peer})["NetworkPolicy", "kaito-console"]
    assert policy["spec"]["ingress"][0]["from"] == peer
