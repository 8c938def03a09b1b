"""Allocates cluster IPs and node ports of Services and validates their ports."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from kaito.apiserver import errors
from kaito.apiserver.errors import FieldError, invalid_value, required
from kaito.apiserver.registry.server_state import ServerState
from kaito.apiserver.wire import Object

FIRST_NODE_PORT = 30000
IN_PORT_RANGE = "must be between 1 and 65535, inclusive"


def allocate(state: ServerState, spec: Object) -> None:
    """Gives a Service its cluster address and node ports."""
    if spec.get("type") == "ExternalName":
        return
    services = [stored.data["spec"] for stored in state.store.watch_cache("services").objects.values()]
    if not spec.get("clusterIP"):
        spec["clusterIP"] = (spec.get("clusterIPs") or [None])[0] or _free_address(services, state.service_range)
    spec["clusterIPs"] = spec.get("clusterIPs") or [spec["clusterIP"]]
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    if spec.get("type") in {"NodePort", "LoadBalancer"}:
        used = {port.get("nodePort") for service in services for port in service.get("ports") or ()}
        for port in spec.get("ports") or ():
            if not port.get("nodePort"):
                port["nodePort"] = next(number for number in range(FIRST_NODE_PORT, 32768) if number not in used)
                used.add(port["nodePort"])


def _free_address(services: list[Object], within: IPv4Network) -> str:
    used = {service.get("clusterIP") for service in services}
    first = int(within.network_address) + 10
    return next(
        address
        for number in range(first, int(within.broadcast_address))
        if (address := str(IPv4Address(number))) not in used
    )


def keep_allocated(spec: Object, old: Object) -> None:
    """Carries over allocated fields that an update leaves out (`patchAllocatedValues`)."""
    if spec.get("type") == "ExternalName":
        return
    for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if not spec.get(name) and old.get(name):
            spec[name] = old[name]
    if spec.get("clusterIPs") == old.get("clusterIPs") and spec["clusterIP"] != old.get("clusterIP"):
        spec["clusterIPs"] = [spec["clusterIP"]]
    known = {(port.get("port"), port.get("protocol")): port.get("nodePort") for port in old.get("ports") or ()}
    if spec.get("type") in {"NodePort", "LoadBalancer"}:
        for port in spec.get("ports") or ():
            number = known.get((port.get("port"), port.get("protocol")))
            if number and not port.get("nodePort"):
                port["nodePort"] = number


def service_errors(data: Object) -> list[FieldError]:
    """Validates a Service."""
    spec: Object = data["spec"]
    ports: list[Object] = spec.get("ports") or []
    found: list[FieldError] = []
    if not ports and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        found.append(required("spec.ports"))
    names = set[str]()
    for index, port in enumerate(ports):
        here = f"spec.ports[{index}]"
        name = str(port.get("name") or "")
        if not name and len(ports) > 1:
            found.append(required(f"{here}.name"))
        elif name and name in names:
            found.append(errors.duplicate(f"{here}.name", name))
        names.add(name)
        number = port.get("port")
        if not isinstance(number, int) or not 1 <= number <= 65535:
            found.append(invalid_value(f"{here}.port", number or 0, IN_PORT_RANGE))
        target = port.get("targetPort")
        if isinstance(target, int) and not 1 <= target <= 65535:
            found.append(invalid_value(f"{here}.targetPort", target, IN_PORT_RANGE))
    return found


def service_change_errors(data: Object, old: Object) -> list[FieldError]:
    """Validates the immutable fields of a Service."""
    spec, before = data["spec"], old["spec"]
    if spec.get("type") == "ExternalName" or before.get("type") == "ExternalName":
        return []
    if spec.get("clusterIP") != before.get("clusterIP"):
        return [invalid_value("spec.clusterIPs[0]", spec.get("clusterIPs"), "may not change once set")]
    return []
