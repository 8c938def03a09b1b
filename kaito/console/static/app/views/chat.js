// Chat with a Workspace: streaming, adapters and their strength, parameters, speed; two side by side to compare.
import { html, computed, signal, useEffect, useRef, useState } from "../dom.js";
import { api } from "../api.js";
import { key, loaded, workspaces } from "../state.js";
import { go, links } from "../router.js";
import { precise } from "../format.js";
import { Badge, Code, Empty, Icon } from "../ui.js";
import { useDetail } from "./workspace.js";

const servable = computed(() => [...workspaces.value.values()].filter((row) => row.task === "inference").sort((a, b) => Number(b.serving) - Number(a.serving) || (key(a) < key(b) ? -1 : 1)));

/** null: the value of the model's generation config. */
const DEFAULTS = { temperature: null, topP: null, maxTokens: 256, system: "" };

/** One conversation. It lives in memory only: a reload of the page forgets it. */
function newPane(target) {
  return {
    target: signal(target), model: signal(""), settings: signal({ ...DEFAULTS }), messages: signal([]),
    busy: signal(false), abort: null,
  };
}

const panes = signal([newPane(null)]);
const draft = signal("");

function requestBody(pane) {
  const { system, temperature, topP, maxTokens } = pane.settings.value;
  const messages = pane.messages.value.filter((message) => !message.error).map(({ role, content }) => ({ role, content }));
  const body = { messages: system ? [{ role: "system", content: system }, ...messages] : messages, maxTokens };
  if (temperature !== null) body.temperature = temperature;
  if (topP !== null) body.topP = topP;
  if (pane.model.value) body.model = pane.model.value;
  return body;
}

async function ask(pane, text) {
  const [namespace, name] = pane.target.value.split("/");
  pane.messages.value = [...pane.messages.value, { role: "user", content: text }];
  const body = requestBody(pane);
  const answer = { role: "assistant", content: "", stats: null, error: null };
  const show = (change) => {
    Object.assign(answer, change);
    pane.messages.value = [...pane.messages.value.filter((one) => one.id !== "answer"), { ...answer, id: "answer" }];
  };
  pane.busy.value = true;
  pane.abort = new AbortController();
  show({});
  try {
    for await (const { event, data } of api.chat(namespace, name, body, pane.abort.signal)) {
      if (event === "token") show({ content: answer.content + data.text });
      else if (event === "done") show({ stats: data });
      else if (event === "error") show({ error: data.error });
    }
  } catch (error) {
    show({ error: error.name === "AbortError" ? "Stopped." : error.message });
  }
  pane.messages.value = pane.messages.value.map(({ id, ...message }) => message);
  pane.busy.value = false;
}

function send() {
  const text = draft.value.trim();
  if (!text) return;
  draft.value = "";
  for (const pane of panes.value) if (pane.target.value && !pane.busy.value) ask(pane, text);
}

function stats(data) {
  const parts = [];
  if (data.completionTokens != null) parts.push(`${data.completionTokens} tokens`);
  if (data.firstTokenSeconds != null) parts.push(`first token after ${precise(data.firstTokenSeconds)}`);
  if (data.tokensPerSecond != null) parts.push(`${data.tokensPerSecond.toFixed(1)} tokens/s`);
  if (data.finishReason === "length") parts.push("ended at the limit of tokens");
  return parts.join(" · ");
}

function Message({ message, streaming }) {
  const user = message.role === "user";
  return html`<div class="message ${user ? "message-user" : "message-model"}">
    <span class="hidden-label">${user ? "You" : "Model"}: </span>
    ${message.content && html`<div class="message-text">${message.content}${streaming && html`<span class="caret" aria-hidden="true"></span>`}</div>`}
    ${!message.content && streaming && html`<div class="muted">Waiting for the first token</div>`}
    ${message.error && html`<div class="bad-text break" role="alert"><${Icon} name="warn" /> ${message.error}</div>`}
    ${message.stats && html`<div class="muted small num" data-stats>${stats(message.stats)}</div>`}
  </div>`;
}

function Log({ pane }) {
  const box = useRef(null);
  const messages = pane.messages.value;
  useEffect(() => {
    box.current.scrollTop = box.current.scrollHeight;
  }, [messages]);
  return html`<div ref=${box} class="chat-log" role="log" aria-label="Conversation with ${pane.target.value ?? "no Workspace"}" tabindex="0">
    ${messages.length === 0 && html`<${Empty}><p>Write a message below. The console neither logs nor stores it.</p><//>`}
    ${messages.map((message, index) => html`<${Message} key=${index} message=${message} streaming=${pane.busy.value && index === messages.length - 1 && message.role === "assistant"} />`)}
  </div>`;
}

/** The lines that send the same request without the console. */
function callLines(pane, detail) {
  const base = detail?.endpoints?.openai ?? detail?.endpoints?.url;
  if (!base) return null;
  const body = requestBody(pane);
  const messages = body.messages.filter((one) => one.role !== "assistant").slice(-2);
  const model = body.model ?? detail.model;
  const content = {
    model, messages: messages.length ? messages : [{ role: "user", content: "Hello" }], temperature: body.temperature,
    top_p: body.topP, max_tokens: body.maxTokens,
  };
  const options = [["temperature", body.temperature], ["top_p", body.topP], ["max_tokens", body.maxTokens]].filter(([, value]) => value !== undefined);
  const root = base.replace(/\/$/, "").replace(/\/chat\/completions$/, "");
  const api = /\/v1$/.test(root) ? root : `${root}/v1`;
  const text = JSON.stringify(content, null, 2).replaceAll("'", "'\\''");
  return {
    curl: `curl ${api}/chat/completions \\\n  -H 'Content-Type: application/json' \\\n  -d '${text}'`,
    python: [
      "from openai import OpenAI", "", `client = OpenAI(base_url="${api}", api_key="none")`, "answer = client.chat.completions.create(",
      `    model=${JSON.stringify(model)},`, `    messages=${JSON.stringify(content.messages)},`,
      `    ${options.map(([name, value]) => `${name}=${value}`).join(", ")},`, ")", "print(answer.choices[0].message.content)",
    ].join("\n"),
  };
}

function CallLines({ pane, detail }) {
  const lines = callLines(pane, detail);
  if (!lines) return null;
  return html`<details><summary>The same with curl or Python</summary><div class="stack">
    <h3>curl</h3><${Code} text=${lines.curl} wrap /><h3>Python</h3><${Code} text=${lines.python} wrap />
  </div></details>`;
}

function Slider({ label, min, max, step, value, middle, onInput, help }) {
  return html`<label class="slider"><span>${label} <span class="num muted">${value ?? "of the model"}</span></span>
    <input type="range" min=${min} max=${max} step=${step} value=${value ?? middle} title=${help} onInput=${(event) => onInput(Number(event.target.value))} /></label>`;
}

/** The first model is the Workspace's own answer; NAME:base is the model without its adapters; the others are adapters. */
function modelLabel(model, index, adapters) {
  if (index === 0) return adapters.length ? `${model} (as configured)` : model;
  if (model.endsWith(":base")) return `${model.slice(0, -5)} without adapters`;
  const adapter = adapters.find((one) => one.name === model);
  return adapter?.strength != null ? `${model} (adapter, strength ${adapter.strength})` : `${model} (adapter)`;
}

function Settings({ pane, models, adapters }) {
  const settings = pane.settings.value;
  const set = (name) => (value) => (pane.settings.value = { ...pane.settings.value, [name]: value });
  return html`<details class="chat-settings"><summary>Model and parameters</summary><div class="stack">
    ${models.length > 1 && html`<label class="field"><span class="label">Model or adapter</span>
      <select value=${pane.model.value} onChange=${(event) => (pane.model.value = event.target.value)}>${models.map((one, index) => html`<option key=${one} value=${index ? one : ""}>${modelLabel(one, index, adapters)}</option>`)}</select></label>`}
    <${Slider} label="Temperature" min="0" max="2" step="0.05" value=${settings.temperature} middle="0.7" onInput=${set("temperature")} help="0 gives the most likely answer, higher values give more variety" />
    <${Slider} label="Top p" min="0.05" max="1" step="0.05" value=${settings.topP} middle="0.95" onInput=${set("topP")} help="Only the most likely tokens with this total probability are used" />
    <label class="field"><span class="label">Most tokens of an answer</span>
      <input type="number" min="1" max="32768" value=${settings.maxTokens} onInput=${(event) => set("maxTokens")(Math.max(1, Number(event.target.value) || 1))} /></label>
    <label class="field"><span class="label">System message</span>
      <textarea rows="2" value=${settings.system} placeholder="Optional: how the model shall answer" onInput=${(event) => set("system")(event.target.value)}></textarea></label>
  </div></details>`;
}

function Pane({ pane, index, count }) {
  const target = pane.target.value;
  const [namespace, name] = target ? target.split("/") : [null, null];
  const { detail, row } = useDetail(namespace, name);
  const [models, setModels] = useState([]);
  const serving = row?.serving === true;
  useEffect(() => {
    setModels([]);
    if (!target || !serving) return;
    api.models(namespace, name).then((answer) => setModels(answer.models.map((one) => one.id ?? one)), () => {});
  }, [target, serving]);
  const select = (value) => {
    pane.abort?.abort();
    Object.assign(panes.value[index], newPane(value), { settings: pane.settings });
    panes.value = [...panes.value];
    if (index === 0) go(links.chat({ namespace: value.split("/")[0], name: value.split("/").slice(1).join("/") }));
  };
  return html`<section class="card chat-pane" aria-label="Conversation ${index + 1}">
    <header>
      <div class="chat-target"><select aria-label="Workspace" value=${target ?? ""} onChange=${(event) => select(event.target.value)}>
        ${!target && html`<option value="">Choose a Workspace</option>`}
        ${target && !row && html`<option value=${target} selected>${target}</option>`}
        ${servable.value.map((one) => html`<option key=${key(one)} value=${key(one)} selected=${key(one) === target}>${key(one)}${one.serving ? "" : " (does not answer yet)"}</option>`)}
      </select></div>
      ${row && html`<${Badge} state=${row.state} />`}
      <div class="row end">
        ${pane.messages.value.length > 0 && html`<button type="button" class="small" onClick=${() => { pane.abort?.abort(); pane.messages.value = []; }}>Clear</button>`}
        ${count > 1 && html`<button type="button" class="small plain" aria-label="Close this conversation" onClick=${() => { pane.abort?.abort(); panes.value = panes.value.filter((one) => one !== pane); }}><${Icon} name="cross" /></button>`}
      </div>
    </header>
    ${row && !serving && html`<p class="chat-note s-warn">This model does not answer yet: ${row.summary} <a href=${links.workspace(row)}>See why</a></p>`}
    <${Log} pane=${pane} />
    <div class="chat-tools">
      <${Settings} pane=${pane} models=${models} adapters=${detail?.adapters ?? []} />
      <${CallLines} pane=${pane} detail=${detail} />
    </div>
  </section>`;
}

function Composer() {
  const input = useRef(null);
  const busy = panes.value.some((pane) => pane.busy.value);
  const ready = panes.value.some((pane) => pane.target.value && workspaces.value.get(pane.target.value)?.serving);
  function onKeyDown(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (ready && !busy) send();
    }
  }
  return html`<form class="composer card" onSubmit=${(event) => { event.preventDefault(); if (ready && !busy) send(); }}>
    <label class="composer-text"><span class="hidden-label">Message</span>
      <textarea ref=${input} rows="2" value=${draft.value} placeholder=${panes.value.length > 1 ? "Message to both" : "Message"} onInput=${(event) => (draft.value = event.target.value)} onKeyDown=${onKeyDown}></textarea></label>
    ${busy
      ? html`<button type="button" onClick=${() => panes.value.forEach((pane) => pane.abort?.abort())}><${Icon} name="pause" />Stop</button>`
      : html`<button type="submit" class="primary" disabled=${!ready || !draft.value.trim()}>Send</button>`}
  </form>`;
}

export function Chat({ parts: [namespace, name] }) {
  const wanted = namespace && name ? `${namespace}/${name}` : null;
  const first = panes.value[0];
  useEffect(() => {
    if (wanted && first.target.value !== wanted) panes.value = [newPane(wanted), ...panes.value.slice(1)];
    else if (!wanted && !first.target.value && servable.value[0]?.serving) first.target.value = key(servable.value[0]);
  }, [wanted, loaded.value]);
  if (loaded.value && servable.value.length === 0 && !wanted) {
    return html`<div class="page"><h1 tabindex="-1">Chat</h1><div class="card"><${Empty}><p>There is no model to talk to yet.</p><a class="button primary" href=${links.create}>Make a Workspace</a><//></div></div>`;
  }
  const compare = () => {
    const other = servable.value.find((row) => row.serving && key(row) !== first.target.value) ?? servable.value[0];
    panes.value = [first, newPane(other ? key(other) : null)];
  };
  return html`<div class="page chat-page">
    <div class="page-head"><div class="title"><h1 tabindex="-1">Chat</h1></div>
      <div class="row">${panes.value.length < 2 && html`<button type="button" onClick=${compare}><${Icon} name="scale" />Compare two</button>`}</div></div>
    <div class="chat-panes count-${panes.value.length}">${panes.value.map((pane, index) => html`<${Pane} key=${index} pane=${pane} index=${index} count=${panes.value.length} />`)}</div>
    <${Composer} />
  </div>`;
}
