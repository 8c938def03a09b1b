"""Reading a model over HTTP: what is found, and the message of each failure."""

import json
from collections.abc import AsyncIterator

import pytest

from kaito.models.facts.reference import ModelReference
from kaito.workspace.hub import client as client_module, transfer
from kaito.workspace.hub.client import HubClient
from kaito.workspace.hub.errors import ModelUnavailable
from kaito.workspace.hub.query import ModelQuery
from test.support.hub_server import COMMIT, HubServer, Repository, hub_server, safetensors

MODEL = "org/Small-Model"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}
SIZE = 269_060_552


def repository(**changes: object) -> Repository:
    header = safetensors({"model.embed": ("BF16", [1000, 576], 1_152_000), "norm": ("F32", [576], 2304)})
    found = Repository({"config.json": json.dumps(CONFIG).encode(), "model.safetensors": header, "README.md": b"x"})
    found.sizes["model.safetensors"] = SIZE
    for name, value in changes.items():
        setattr(found, name, value)
    return found


@pytest.fixture
async def hub() -> AsyncIterator[HubServer]:
    async with hub_server() as server:
        server.repositories[MODEL] = repository()
        yield server


def query(text: str = MODEL, token: str = "") -> ModelQuery:
    return ModelQuery(ModelReference.parse(text), token)


async def failure(hub: HubServer, wanted: ModelQuery | None = None) -> ModelUnavailable:
    with pytest.raises(ModelUnavailable) as caught:
        await HubClient(hub.address).read(wanted or query())
    return caught.value


async def test_the_facts_are_read_at_the_commit_of_the_revision(hub: HubServer) -> None:
    facts = await HubClient(f"{hub.address}/").read(query("ORG/small-model@v1", "secret"))

    assert (facts.model, facts.revision, facts.license) == ("ORG/small-model", COMMIT, "apache-2.0")
    assert (facts.weights_bytes, facts.kv_bytes_per_token, facts.context) == (SIZE, 23040, 8192)
    assert facts.parameters == 576_000 + 576
    assert {authorization for _, _, authorization in hub.requests} == {"Bearer secret"}
    assert hub.requests[0][0] == "/api/models/ORG/small-model/revision/v1"
    assert all(COMMIT in path for path, _, _ in hub.requests[1:])


async def test_the_spelling_of_the_hub_is_used(hub: HubServer) -> None:
    hub.repositories[MODEL].name = MODEL

    assert (await HubClient(hub.address).read(query("org/small-model"))).model == MODEL


async def test_numbers_that_the_hub_has_counted_need_no_headers(hub: HubServer) -> None:
    hub.repositories[MODEL].counted = {"BF16": 134_515_008}

    facts = await HubClient(hub.address).read(query())

    assert facts.parameters == 134_515_008
    assert not any(path.endswith(".safetensors") for path, _, _ in hub.requests)


@pytest.mark.parametrize("ranges", [True, False])
async def test_headers_are_read_by_ranges_also_if_the_server_ignores_them(hub: HubServer, *, ranges: bool) -> None:
    hub.ranges = ranges

    assert (await HubClient(hub.address).read(query())).parameters == 576_576


async def test_only_files_of_the_index_count(hub: HubServer) -> None:
    shards = [f"model-{number:05}-of-00006.safetensors" for number in range(1, 7)]
    names = {f"layer.{number}": shard for number, shard in enumerate(shards * 200)}
    found = repository()
    del found.files["model.safetensors"], found.sizes["model.safetensors"]
    found.files["model.safetensors.index.json"] = json.dumps({"weight_map": names}).encode()
    found.sizes |= dict.fromkeys(shards, 10**9) | {"consolidated.safetensors": 6 * 10**9, "original/m.safetensors": 9}
    hub.repositories[MODEL] = found

    facts = await HubClient(hub.address).read(query())

    assert (facts.weights_bytes, facts.weights_files) == (6 * 10**9, 6)
    assert facts.parameters == 3 * 10**9  # the headers of more than a few files are not read


async def test_sizes_that_a_mirror_does_not_list_are_asked_for(hub: HubServer) -> None:
    hub.repositories[MODEL].without_sizes = True

    assert (await HubClient(hub.address).read(query())).weights_bytes == SIZE


async def test_the_token_is_not_sent_to_another_host(hub: HubServer) -> None:
    async with hub_server() as storage:
        storage.repositories[MODEL] = hub.repositories[MODEL]
        hub.redirect_files_to = storage.address

        facts = await HubClient(hub.address).read(query(token="secret"))

        assert facts.weights_bytes == SIZE
        assert {authorization for _, _, authorization in hub.requests} == {"Bearer secret"}
        assert storage.requests
        assert {authorization for _, _, authorization in storage.requests} == {""}


async def test_a_redirect_within_the_hub_keeps_the_token(hub: HubServer) -> None:
    hub.answers = [(307, {"Location": f"/api/models/{MODEL}/revision/main"})]

    await HubClient(hub.address).read(query(token="secret"))

    assert {authorization for _, _, authorization in hub.requests} == {"Bearer secret"}


async def test_endless_redirects_end(hub: HubServer) -> None:
    hub.answers = [(302, {"Location": "/again"})] * 20

    error = await failure(hub)

    assert (error.reason, error.is_transient) == ("HubUnreachable", True)
    assert "more than 5 redirects" in error.message


@pytest.mark.parametrize("target", ["file:///etc/passwd", "gopher://x/", ""])
async def test_a_redirect_to_something_else_is_not_followed(hub: HubServer, target: str) -> None:
    hub.answers = [(302, {"Location": target})] * 20

    assert (await failure(hub)).reason == "HubUnreachable"


async def test_a_model_that_does_not_exist(hub: HubServer) -> None:
    error = await failure(hub, query("org/other"))

    assert (error.reason, error.is_transient) == ("ModelNotFound", True)
    assert error.message.startswith(f"org/other does not exist at {hub.address}")
    assert (await failure(hub, query(f"{MODEL}@nothing"))).reason == "ModelNotFound"
    assert "the token has no access to it" in (await failure(hub, query("org/other", "secret"))).message


async def test_a_gated_model_needs_a_token_with_access(hub: HubServer) -> None:
    hub.repositories[MODEL] = repository(gated=True, token="right")

    without, wrong = await failure(hub), await failure(hub, query(token="wrong"))

    assert (without.reason, wrong.reason) == ("ModelGated", "ModelGated")
    assert "name a Secret with the key HF_TOKEN in presetOptions.modelAccessSecret" in without.message
    assert "has no access to it: accept its license" in wrong.message
    assert (await HubClient(hub.address).read(query(token="right"))).gated


async def test_a_server_that_asks_to_wait(hub: HubServer) -> None:
    hub.answers = [(429, {"Retry-After": "77"})]

    error = await failure(hub)

    assert (error.reason, error.retry_after, error.is_transient) == ("HubUnreachable", 77.0, True)


@pytest.mark.parametrize(("text", "seconds"), [("", None), ("soon", None), ("-1", None), ("9" * 9, 3600.0), ("0", 0.0)])
async def test_the_pause_is_bounded(hub: HubServer, text: str, seconds: float | None) -> None:
    hub.answers = [(503, {"Retry-After": text})]

    assert (await failure(hub)).retry_after == seconds


async def test_a_response_that_ends_early(hub: HubServer) -> None:
    hub.cut = 20

    error = await failure(hub)

    assert (error.reason, error.is_transient) == ("HubUnreachable", True)
    assert "check the network, the proxy and --hub-endpoint" in error.message


async def test_a_server_that_does_not_answer(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "READ_SECONDS", 0.05)
    hub.hang = True

    assert (await failure(hub)).reason == "HubUnreachable"


async def test_the_whole_read_has_a_limit(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "READ_LIMIT_SECONDS", 0.05)
    hub.hang = True

    error = await failure(hub)

    assert (error.reason, error.is_transient) == ("HubUnreachable", True)


async def test_no_server() -> None:
    with pytest.raises(ModelUnavailable, match=r"cannot be read from http://127\.0\.0\.1:9") as caught:
        await HubClient("http://127.0.0.1:9").read(query())
    assert caught.value.reason == "HubUnreachable"


async def test_no_hub() -> None:
    with pytest.raises(ModelUnavailable, match=r"--hub-endpoint is empty: give its facts in presetOptions\.modelFacts"):
        await HubClient("").read(query())


@pytest.mark.parametrize("body", [b"<html>login</html>", b"[]", b"{}", b'{"sha": "main", "siblings": []}'])
async def test_an_answer_that_is_not_of_a_hub(hub: HubServer, body: bytes) -> None:
    hub.body = body

    error = await failure(hub)

    assert (error.reason, error.is_transient) == ("HubUnreachable", True)
    assert "check --hub-endpoint and the proxy" in error.message


async def test_a_body_without_end_is_not_read(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_DESCRIPTION_BYTES", 100)

    assert (await failure(hub)).reason == "ModelInvalid"


REFUSED = [
    ({"architectures": ["BertModel"]}, "UnsupportedArchitecture", "computes embeddings"),
    ({"auto_map": {"AutoConfig": "c.C"}, "model_type": "odd"}, "RemoteCodeRequired", "trustRemoteCode"),
]


@pytest.mark.parametrize(("change", "reason", "words"), REFUSED, ids=lambda value: str(value)[:20])
async def test_a_model_that_cannot_be_served(
    hub: HubServer, change: dict[str, object], reason: str, words: str
) -> None:
    hub.repositories[MODEL].files["config.json"] = json.dumps({**CONFIG, **change}).encode()

    error = await failure(hub)

    assert (error.reason, error.is_transient) == (reason, False)
    assert error.message.startswith(MODEL)
    assert words in error.message


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"model.gguf": b"x"}, "NoSafetensors"),
        ({"config.json": b"not json", "model.safetensors": b"x"}, "ModelInvalid"),
        ({"config.json": json.dumps(CONFIG).encode(), "model.safetensors": b"12345678rest"}, "ModelInvalid"),
    ],
)
async def test_a_repository_that_is_not_a_model(hub: HubServer, files: dict[str, bytes], reason: str) -> None:
    hub.repositories[MODEL] = Repository(files)

    error = await failure(hub)

    assert (error.reason, error.is_transient) == (reason, False)


async def test_a_token_is_in_no_message(hub: HubServer) -> None:
    wanted = query("org/other", "hf_verysecret")

    assert "verysecret" not in f"{wanted!r} {await failure(hub, wanted)}"


def test_limits_are_larger_than_real_files() -> None:
    """The index of a model with 400 experts has about 20 MB, the header of its files less than 1 MB."""
    assert client_module.MAX_INDEX_BYTES > 4 * 20_000_000
    assert client_module.MAX_HEADER_BYTES > 10_000_000
    assert transfer.CONNECT_SECONDS + transfer.READ_SECONDS < client_module.READ_LIMIT_SECONDS
