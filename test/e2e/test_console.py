"""The console in Chromium, against a server with canned answers: every view, every change, every interruption."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser, FloatRect, Page, expect

from kaito.api import Workspace
from test.support import console_data as data
from test.support.console_browser import DESKTOP, PHONE, chromium, violations, watched_page
from test.support.console_server import ConsoleStub

pytestmark = pytest.mark.timeout(120)

VIEWS = {
    "list": "#/",
    "failing": "#/w/team-a/support-bot",
    "ready": "#/w/default/phi",
    "tuning": "#/w/team-b/house-style",
    "events": "#/w/default/phi?tab=events",
    "yaml": "#/w/default/phi?tab=yaml",
    "chat": "#/chat/default/phi",
    "new": "#/new",
    "cost": "#/money",
    "trouble": "#/trouble",
}


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def stub() -> Generator[ConsoleStub]:
    with ConsoleStub() as server:
        yield server


@pytest.fixture
def page(browser: Browser, stub: ConsoleStub) -> Generator[Page]:
    del stub  # it ends after the page, which reports a lost connection
    with watched_page(browser) as opened:
        yield opened


def visit(page: Page, stub: ConsoleStub, address: str) -> None:
    """Opens a view and waits until it has its data."""
    page.goto(f"{stub.url}{address}")
    page.locator("main h1").first.wait_for()
    expect(page.locator("[data-loading]")).to_have_count(0)


@contextmanager
def console(page: Page, server: ConsoleStub) -> Generator[ConsoleStub]:
    """Another server than that of the fixture; the page leaves it before it ends."""
    with server:
        yield server
        page.goto("about:blank")


def pick(page: Page, model: str) -> None:
    """Chooses a model of the catalog."""
    page.locator(f"input[name=model][value='{model}']").check()


def change(stub: ConsoleStub) -> tuple[str, str, dict[str, Any]]:
    """The next change that the browser requested."""
    return stub.requests.get(timeout=15)


# -- the list ---------------------------------------------------------------------------------------------------------


def test_the_list_shows_what_needs_attention_first(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/")
    names = page.locator(".list-window [data-name]")
    expect(names).to_have_count(7)
    assert names.first.get_attribute("data-name") == "team-a/support-bot"
    expect(names.first).to_contain_text("QuotaExceeded")
    expect(page.get_by_role("button", name="1 Failing")).to_be_visible()
    expect(page.locator(".figures")).to_contain_text("20.81 USD/h")


def test_state_namespace_and_words_filter_the_list(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/")
    names = page.locator(".list-window [data-name]")
    page.get_by_role("button", name="2 In progress").click()
    expect(names).to_have_count(2)
    page.get_by_role("button", name="2 In progress").click()
    page.get_by_label("Namespace").select_option("team-a")
    expect(names).to_have_count(2)
    page.locator("main h1").focus()
    page.keyboard.press("/")  # outside of an input, the key leads to the search
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type("mistral quota")
    expect(names).to_have_count(1)
    page.get_by_label("Search").fill("nothing has this name")
    expect(page.get_by_text("No Workspace matches the search.")).to_be_visible()
    page.get_by_role("button", name="Show all").click()
    expect(names).to_have_count(7)


def test_the_keyboard_moves_through_the_list_and_opens_a_workspace(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/")
    page.locator("[data-row='0']").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator("[data-row='2']")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main h1")).to_have_text("house-style")
    expect(page.locator("main h1")).to_be_focused()


def test_changes_arrive_without_a_reload(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/")
    names = page.locator(".list-window [data-name]")
    stub.change(data.row("fresh", "progressing"), deletes=("team-b/falcon",))
    expect(page.locator("[data-name='default/fresh']")).to_contain_text("In progress")
    expect(page.locator("[data-name='team-b/falcon']")).to_have_count(0)
    stub.change(data.row("fresh", "ready"))
    expect(page.locator("[data-name='default/fresh']")).to_contain_text("Ready")
    expect(names).to_have_count(7)


def test_an_empty_cluster_leads_to_the_form(page: Page) -> None:
    with console(page, ConsoleStub([])) as stub:
        visit(page, stub, "#/")
        page.get_by_role("link", name="Make the first one").click()
        expect(page.locator("main h1")).to_have_text("New Workspace")


def test_a_thousand_workspaces_need_no_more_of_the_page_than_the_visible_ones(page: Page) -> None:
    with console(page, ConsoleStub(data.many(1000))) as stub:
        visit(page, stub, "#/")
        expect(page.get_by_role("button", name="1,000 All")).to_be_visible()
        rendered = page.locator(".list-window [role=row]")
        assert rendered.count() < 60
        page.locator("main").evaluate("main => { main.scrollTop = main.scrollHeight }")
        expect(page.locator("[aria-rowindex='1001']")).to_be_visible()
        assert rendered.count() < 60
        nodes = page.evaluate("document.getElementsByTagName('*').length")
        for index in range(0, 1000, 5):
            stub.change(data.row(f"model-{index:04}", "failing", namespace=f"team-{index % 12:02}"))
        expect(page.get_by_role("button", name="300 Failing")).to_be_visible()
        assert page.evaluate("document.getElementsByTagName('*').length") < nodes + 300
        assert page.evaluate("kaitoConsole.rows()") == 1000


# -- one Workspace ----------------------------------------------------------------------------------------------------


def stage(page: Page, name: str) -> str | None:
    """State of a stage of the picture."""
    return page.locator(f"[data-stage='{name}']").get_attribute("data-state")


def test_the_root_cause_is_on_top_with_what_happens_next_and_what_to_do(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/w/team-a/support-bot")
    cause = page.get_by_role("region", name="State")
    expect(cause).to_contain_text("QuotaExceeded")
    expect(cause).to_contain_text("insufficient vCPU quota")
    expect(cause.get_by_text("The provisioner makes the next launch attempt")).to_be_visible()
    expect(cause.get_by_text("az vm list-usage --location eastus -o table")).to_be_visible()
    expect(page.locator(".stage-cause")).to_have_attribute("data-stage", "Claim")
    assert {name: stage(page, name) for name in ("Workspace", "Claim", "Node", "Answer")} == {
        "Workspace": "failed",
        "Claim": "failed",
        "Node": "absent",
        "Answer": "absent",
    }
    parts = page.get_by_role("region", name="Parts")
    expect(parts).to_contain_text("launch attempt 3 failed")
    expect(parts).to_contain_text("3 times")


def test_what_a_workspace_waits_for_is_not_shown_as_a_failure(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/w/team-a/coder")
    expect(page.locator(".stage-cause")).to_have_attribute("data-stage", "Pod")
    expect(page.locator(".stage-cause")).to_contain_text("waits for this")
    expect(page.get_by_role("region", name="State")).to_contain_text("Still answers")


def test_the_picture_follows_the_cluster(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/w/team-a/support-bot")
    stub.change(data.row("support-bot", "ready", namespace="team-a"))
    expect(page.locator("[data-stage='Claim']")).to_have_attribute("data-state", "ok")
    assert stage(page, "Answer") == "ok"
    assert stage(page, "GPU") == "ok"


def test_the_waterfall_lists_each_step_of_the_start(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/w/default/phi")
    times = page.get_by_role("region", name="What took how long")
    expect(times.get_by_role("listitem")).to_have_count(7)
    expect(times).to_contain_text("Weights")
    expect(times).to_contain_text("88 s")
    expect(times).to_contain_text("6 min in all")


def test_events_and_yaml_have_tabs(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/w/default/phi")
    page.get_by_role("tab", name="Overview").focus()
    page.keyboard.press("ArrowRight")
    rows = page.get_by_role("tabpanel").locator("tbody tr")
    expect(rows).to_have_count(4)
    page.get_by_label("Only warnings").check()
    expect(rows).to_have_count(1)
    page.get_by_role("tab", name="YAML").click()
    text = page.locator("[role=tabpanel] pre").text_content()
    assert yaml.safe_load(text or "")["metadata"] == {"name": "phi", "namespace": "default"}
    page.reload()
    expect(page.get_by_role("tab", name="YAML")).to_have_attribute("aria-selected", "true")


def test_a_tuning_workspace_shows_loss_progress_and_push(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/w/team-b/house-style")
    tuning = page.get_by_role("region", name="Tuning")
    expect(tuning.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "60")
    expect(tuning).to_contain_text("waits for the end of the training")
    title = tuning.locator("svg title").text_content()
    assert title is not None
    assert title.startswith("Loss: from 2.")
    expect(page.get_by_role("link", name="Chat").locator("visible=true")).to_have_count(1)  # only that of the menu


def test_scale_and_delete_need_a_confirmation(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/w/default/phi")
    page.get_by_role("button", name="Scale").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="Scale").click()
    page.get_by_role("dialog").get_by_label("Copies").fill("3")
    page.get_by_role("dialog").get_by_role("button", name="Scale").click()
    assert change(stub) == ("POST", "/api/workspaces/default/phi/scale", {"copies": 3})
    expect(page.get_by_role("region", name="Facts")).to_contain_text("1 of 3 ready")
    expect(page.locator("[data-stage='Pod'] .stage-state")).to_have_text("1 of 3")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    assert change(stub) == ("DELETE", "/api/workspaces/default/phi", {})
    expect(page.get_by_role("region", name="State")).to_contain_text("Deleting")


def test_a_deleted_workspace_is_reported(browser: Browser, stub: ConsoleStub) -> None:
    with watched_page(browser, allowed=("404",)) as page:
        visit(page, stub, "#/w/default/phi")
        stub.change(deletes=("default/phi",))
        expect(page.get_by_text("This Workspace does not exist any more.")).to_be_visible()


def test_a_read_only_console_offers_no_change(page: Page) -> None:
    with console(page, ConsoleStub(writes=False, trouble=False)) as stub:
        visit(page, stub, "#/w/default/phi")
        expect(page.get_by_role("button", name="Delete")).to_have_count(0)
        expect(page.get_by_role("link", name="Trouble")).to_have_count(0)
        visit(page, stub, "#/new")
        pick(page, "phi-4")
        expect(page.locator("[data-verdict='It fits']")).to_be_visible()
        expect(page.get_by_role("button", name="Create the Workspace")).to_have_count(0)
        expect(page.get_by_text("kubectl apply")).to_be_visible()


# -- chat -------------------------------------------------------------------------------------------------------------


def test_a_chat_streams_and_shows_its_speed(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/chat/default/phi")
    page.get_by_text("Model and parameters").click()
    page.get_by_label("Model or adapter").select_option("house-style")
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("System message").fill("Be brief.")
    page.get_by_label("Message", exact=True).fill("What is the capital of France?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("log")).to_contain_text("The capital of France is Paris.")
    expect(page.locator("[data-stats]")).to_have_text("7 tokens · first token after 0.2 s · 41.3 tokens/s")
    method, path, body = change(stub)
    assert (method, path) == ("POST", "/api/workspaces/default/phi/chat")
    assert body == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is the capital of France?"},
        ],
        "model": "house-style",
        "temperature": 0,
        "maxTokens": 256,
    }
    page.get_by_text("The same with curl or Python").click()
    curl = page.locator(".chat-tools pre").first.text_content() or ""
    sent = json.loads(curl.split("-d '")[1].rstrip("'"))
    assert sent["model"] == "house-style"
    assert sent["messages"][-1]["content"] == "What is the capital of France?"
    page.get_by_label("Message", exact=True).fill("And of Spain?")
    page.keyboard.press("Enter")
    expect(page.locator("[data-stats]")).to_have_count(2)
    assert [one["role"] for one in change(stub)[2]["messages"]] == ["system", "user", "assistant", "user"]


def test_a_chat_that_fails_shows_the_error_and_can_be_continued(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/chat/default/phi")
    stub.chat_error = "The server of the model ended the answer: see the events of the Workspace."
    page.get_by_label("Message", exact=True).fill("Hello")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_contain_text("ended the answer: see the events of the Workspace.")
    stub.chat_error = ""
    change(stub)
    page.get_by_label("Message", exact=True).fill("Again")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("[data-stats]")).to_have_count(1)
    assert [one["content"] for one in change(stub)[2]["messages"]] == ["Hello", "Again"]
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_role("log")).to_contain_text("neither logs nor stores it")


def test_two_conversations_get_the_same_message(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/chat/default/phi")
    page.get_by_role("button", name="Compare two").click()
    page.get_by_label("Message", exact=True).fill("Hello")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("[data-stats]")).to_have_count(2)
    assert {change(stub)[1], change(stub)[1]} == {
        "/api/workspaces/default/phi/chat",
        "/api/workspaces/team-a/coder/chat",
    }


def test_a_model_that_does_not_answer_explains_why(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/chat/team-a/support-bot")
    expect(page.get_by_text("This model does not answer yet")).to_be_visible()
    page.get_by_label("Message", exact=True).fill("Hello")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    page.get_by_role("link", name="See why").click()
    expect(page.locator("main h1")).to_have_text("support-bot")


# -- new Workspace ----------------------------------------------------------------------------------------------------


def test_the_form_shows_the_plan_and_creates_the_workspace(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/new")
    page.get_by_label("Search models").fill("falcon")
    pick(page, "falcon-40b-instruct")
    page.get_by_label("Instance type", exact=True).select_option("Standard_NC6s_v3")
    expect(page.locator("[data-verdict='Refused']")).to_be_visible()
    expect(page.get_by_role("region", name="Plan")).to_contain_text("needs 84 GiB")
    expect(page.get_by_role("button", name="Create the Workspace")).to_be_disabled()
    page.get_by_label("Instance type", exact=True).select_option("Standard_NC48ads_A100_v4")
    page.get_by_label("Copies", exact=True).fill("2")
    page.get_by_role("textbox", name="Name", exact=True).fill("big-falcon")
    page.get_by_role("combobox", name="Namespace").fill("team-a")
    plan = page.get_by_role("region", name="Plan")
    expect(plan).to_contain_text("Standard_NC48ads_A100_v4")
    expect(plan).to_contain_text("14.69 USD/h")
    expect(plan.get_by_role("img")).to_have_attribute(
        "aria-label",
        "Memory of each GPU: weights 7.3 GiB, key-value cache 819 MiB, overhead 1.0 GiB, "
        "free 5.6 GiB, reserved 1.3 GiB",
    )
    page.get_by_role("button", name="Create the Workspace").click()
    method, path, body = change(stub)
    assert (method, path) == ("POST", "/api/workspaces")
    made = Workspace.model_validate(yaml.safe_load(body["yaml"]))
    assert (made.namespace, made.name) == ("team-a", "big-falcon")
    assert made.resource.count == 2
    assert made.inference is not None
    expect(page.locator("main h1")).to_have_text("big-falcon")


def test_fields_of_the_schema_and_yaml_by_hand(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/new")
    pick(page, "phi-4")
    page.get_by_text("More fields").click()
    page.get_by_label("Zones", exact=True).fill("1\n2")
    page.locator("details.group > summary", has_text="Autoscaling").click()
    page.get_by_label("Min replicas", exact=True).first.fill("0")
    editor = page.get_by_label("YAML of the Workspace")
    document = yaml.safe_load(editor.input_value())
    assert document["resource"]["zones"] == ["1", "2"]
    assert document["spec"] == {"autoscaling": {"minReplicas": 0}}
    editor.fill(editor.input_value().replace("name: phi-4", "name: " + "n" * 60, 1))
    expect(page.get_by_role("region", name="Plan")).to_contain_text("has 60 characters")
    page.get_by_role("button", name="Back to the form").click()
    expect(page.locator("[data-verdict='It fits']")).to_be_visible()


def test_the_yaml_of_the_form_keeps_every_text(page: Page, stub: ConsoleStub) -> None:
    """Texts that YAML would read as another type, or that contain its own characters."""
    texts = [
        "1.0",
        "12.50",
        "yes",
        "null",
        "~",
        "- a",
        "a: b",
        "#x",
        "",
        " padded ",
        'a "b"',
        "line\nline",
        "ä",
        "@x",
        "a # b",
        "2030-01-01",
    ]
    document = {
        "texts": [text for text in texts if text],
        "numbers": [0, 1.5],
        "flag": False,
        "nested": [{"a": {"b": "c"}, "d": ["e"]}],
        "a b: c": "key",
    }
    visit(page, stub, "#/new")
    written: str = page.evaluate("async data => (await import('/app/yaml.js')).toYaml(data)", document)
    assert yaml.safe_load(written) == document
    assert (
        page.evaluate("async () => (await import('/app/yaml.js')).toYaml({a: '', b: [], c: {d: null}, e: 1})")
        == "e: 1\n"
    )


def test_the_catalog_is_searched_by_license_size_and_context(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/new")
    models = page.get_by_role("radiogroup", name="Models").get_by_role("radio")
    expect(models).to_have_count(17)
    page.get_by_label("License").select_option("Apache-2.0")
    page.get_by_label("Size", exact=True).select_option("Up to 8 B")
    expect(models).to_have_count(4)
    page.get_by_label("Context", exact=True).select_option("At least 128 Ki")
    expect(models).to_have_count(1)
    expect(models).to_have_value("ministral-3-3b-instruct")


def test_a_tuning_form_makes_a_tuning_workspace(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/new")
    page.get_by_role("radio", name="Tune a model").check()
    pick(page, "phi-3-mini-4k-instruct")
    page.get_by_label("Method", exact=True).select_option("qlora")
    page.get_by_label("Addresses of the data").fill("https://example.com/a.parquet")
    page.get_by_label("Image for the adapter").fill("registry.example.com/adapter:1")
    page.get_by_label("Secret for the push").fill("push")
    page.get_by_role("button", name="Create the Workspace").click()
    made = Workspace.model_validate(yaml.safe_load(change(stub)[2]["yaml"]))
    assert made.inference is None
    assert made.tuning is not None
    assert made.tuning.output.image == "registry.example.com/adapter:1"


# -- cost, trouble ----------------------------------------------------------------------------------------------------


def test_cost_names_what_is_without_use_and_the_quota(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/money")
    expect(page.get_by_text("20.81 USD/h").first).to_be_visible()
    expect(page.get_by_role("region", name="Nodes without use")).to_contain_text("No pod of a Workspace")
    expect(page.get_by_role("region", name="Quota")).to_contain_text("96 of 96")
    expect(page.get_by_role("region", name="Cost over time").get_by_role("img")).to_be_visible()
    page.get_by_role("link", name="team-a/coder").click()
    expect(page.locator("main h1")).to_have_text("coder")


def test_trouble_has_a_target_and_a_log(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/trouble")
    page.get_by_role("button", name="Do it: Kill the pod").click()
    assert change(stub) == ("POST", "/api/trouble/kill-pod", {"target": "default/phi-0"})
    expect(page.get_by_role("region", name="Log")).to_contain_text("kill-pod was done to default/phi-0.")
    page.get_by_role("button", name="Do it: Node lost").click()
    assert change(stub)[2] == {"target": "aks-ws6f1a9c042-00000"}
    page.get_by_role("button", name="Do it: No quota").click()
    assert change(stub)[2] == {"target": None}
    page.get_by_label("Workspace", exact=True).select_option("team-a/support-bot")
    expect(page.get_by_role("button", name="Do it: Node lost")).to_be_disabled()
    expect(page.locator(".stage-cause")).to_be_visible()


# -- interruptions ----------------------------------------------------------------------------------------------------


def test_a_lost_console_is_reported_and_comes_back(browser: Browser, stub: ConsoleStub) -> None:
    with watched_page(browser, allowed=("Failed to load", "ERR_")) as page:
        visit(page, stub, "#/")
        stub.stop()
        expect(page.locator(".banner")).to_contain_text("The connection to the console is lost.")
        stub.rows["default/late"] = data.row("late")
        stub.start()
        expect(page.locator(".banner")).to_contain_text("Connected again.")
        expect(page.locator("[data-name='default/late']")).to_be_visible()


def test_an_unreachable_api_server_is_reported(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/")
    stub.send("problem", {"message": "Connection refused.", "since": data.ago(5)})
    expect(page.locator(".banner")).to_contain_text("The API server does not answer. Connection refused.")
    stub.send("recovered", {})
    expect(page.locator(".banner")).to_contain_text("Connected again.")


def test_an_ended_session_names_the_link(browser: Browser, stub: ConsoleStub) -> None:
    with watched_page(browser, allowed=("401",)) as page:
        stub.authorized = False
        page.goto(stub.url)
        expect(page.locator(".banner")).to_contain_text("Open the link that the console printed")


# -- every view -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "dark"), [(DESKTOP, False), (PHONE, True)], ids=["light", "dark on a phone"])
def test_no_view_violates_wcag(browser: Browser, stub: ConsoleStub, dark: bool, size: tuple[int, int]) -> None:
    found: dict[str, list[str]] = {}
    with watched_page(browser, dark=dark, size=size, reduced_motion="reduce") as page:
        page.goto(stub.url)
        for name, address in VIEWS.items():
            visit(page, stub, address)
            if name == "new":
                pick(page, "phi-4")
                page.get_by_text("More fields").click()
                expect(page.locator("[data-verdict='It fits']")).to_be_visible()
            found[name] = violations(page)
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_a_phone_shows_every_view_without_sideways_scrolling(browser: Browser, stub: ConsoleStub) -> None:
    with watched_page(browser, size=PHONE) as page:
        for address in VIEWS.values():
            visit(page, stub, address)
            assert page.evaluate("document.querySelector('main').scrollWidth") <= PHONE[0], address
            box = page.get_by_role("navigation").bounding_box()
            assert box is not None
            assert box["y"] + box["height"] <= PHONE[1]


def test_reduced_motion_moves_nothing(browser: Browser, stub: ConsoleStub) -> None:
    with watched_page(browser, reduced_motion="reduce") as page:
        for address in VIEWS.values():
            visit(page, stub, address)
            assert page.evaluate("document.getAnimations().length") == 0, address


def test_the_color_scheme_can_be_chosen_and_is_kept(page: Page, stub: ConsoleStub) -> None:
    visit(page, stub, "#/")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Colors: auto").click()
    page.get_by_role("button", name="Colors: light").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark != light
    page.reload()
    page.get_by_role("button", name="Colors: dark").wait_for()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


def test_the_layout_has_its_landmarks_in_place(page: Page, stub: ConsoleStub) -> None:
    """Loosely: what is beside what, and what is above what."""

    def box(selector: str) -> FloatRect:
        found = page.locator(selector).first.bounding_box()
        assert found is not None, selector
        return found

    visit(page, stub, "#/w/default/phi")
    assert box(".side")["width"] < 260
    assert box("main")["x"] >= box(".side")["width"]
    assert box(".cause")["y"] < box(".chain")["y"] < box("[role=tablist]")["y"] < box(".parts")["y"]
    assert box("[aria-label=Facts]")["x"] > box("[aria-label=Parts]")["x"]
    dots = [
        box(f"[data-stage='{name}'] .stage-dot")["x"] for name in ("Workspace", "Claim", "Node", "Server", "Answer")
    ]
    assert dots == sorted(dots)
    visit(page, stub, "#/new")
    assert box("[aria-label=Plan]")["x"] > box("[aria-label=Model]")["x"]
    visit(page, stub, "#/chat/default/phi")
    assert box(".composer")["y"] > box(".chat-log")["y"]
    assert box(".composer")["y"] + box(".composer")["height"] <= DESKTOP[1]
