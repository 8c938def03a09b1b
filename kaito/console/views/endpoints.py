"""Where the model of a Workspace answers, and commands to copy."""

import json
from typing import Final

from kaito.chat.endpoint import is_loopback
from kaito.console.views.json_values import Json
from kaito.diagnosis import Situation
from kaito.runtime.kinds import Service

_QUESTION: Final = "What is the capital of France?"


def endpoints(situation: Situation, direct_url: str | None) -> Json | None:
    """Returns the addresses; None if the Workspace serves no model.

    Args:
        situation: the objects of the Workspace.
        direct_url: address at which this machine reaches the Service, if there is one.
    """
    workspace = situation.workspace
    service = next((each for each in situation.services if each.name == workspace.name), None)
    if workspace.inference is None or service is None:
        return None
    url = direct_url or _outside(service) or f"http://{workspace.name}.{workspace.namespace}.svc"
    if not workspace.preset_name:
        return {"url": url, "openai": None, "curl": f"curl {url}/", "python": None}
    openai = f"{url}/v1"
    body = {"model": workspace.preset_name, "messages": [{"role": "user", "content": _QUESTION}]}
    curl = f"curl {openai}/chat/completions \\\n  -H 'Content-Type: application/json' \\\n  -d '{json.dumps(body)}'"
    python = (
        "from openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{openai}", api_key="none")\n'
        "answer = client.chat.completions.create(\n"
        f'    model="{workspace.preset_name}",\n'
        f'    messages=[{{"role": "user", "content": "{_QUESTION}"}}],\n'
        ")\n"
        "print(answer.choices[0].message.content)\n"
    )
    return {"url": url, "openai": openai, "curl": curl, "python": python}


def _outside(service: Service) -> str | None:
    """Returns the address of the load balancer, or the loopback address of a local cluster; None without either."""
    for entry in service.status.load_balancer.ingress:
        if entry.ip or entry.hostname:
            return f"http://{_bracketed(entry.ip or entry.hostname or '')}"
    return f"http://{service.spec.cluster_ip}" if is_loopback(service.spec.cluster_ip) else None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
