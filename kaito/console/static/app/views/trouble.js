// Trouble on purpose (`kaito up` only): buttons that break something, a log, and the picture of what happens then.
import { html, computed, signal, useState } from "../dom.js";
import { api } from "../api.js";
import { key, loaded, now, session, workspaces } from "../state.js";
import { links } from "../router.js";
import { age, clock, sentence } from "../format.js";
import { Badge, Empty, Icon } from "../ui.js";
import { ChainPicture } from "./chain.js";
import { useDetail } from "./workspace.js";

/** What was done since the page was loaded, newest first. */
const log = signal([]);
const chosen = signal("");

const rows = computed(() => [...workspaces.value.values()].sort((a, b) => (key(a) < key(b) ? -1 : 1)));

/** Targets of a button in one Workspace: itself, its nodes, or its pods. */
function targets(button, detail) {
  if (button.target === "none") return [null];
  if (!detail) return [];
  if (button.target === "workspace") return [key(detail)];
  const kind = button.target === "node" ? "Node" : "Pod";
  return detail.chain
    .filter((part) => part.kind === kind && part.name && part.state !== "absent")
    .map((part) => (kind === "Node" || part.name.includes("/") ? part.name : `${detail.namespace}/${part.name}`));
}

async function press(button, target) {
  const entry = { at: new Date().toISOString(), label: button.label, target };
  try {
    const answer = await api.trouble(button.id, target);
    log.value = [{ ...entry, done: answer.done }, ...log.value];
  } catch (error) {
    log.value = [{ ...entry, error: error.message }, ...log.value];
  }
}

function TroubleButton({ button, detail, compact }) {
  const [busy, setBusy] = useState(false);
  const [selected, setSelected] = useState(null);
  const possible = targets(button, detail);
  const target = possible.includes(selected) ? selected : possible[0];
  const missing = possible.length === 0;
  const run = async () => {
    setBusy(true);
    await press(button, target);
    setBusy(false);
  };
  return html`<li class="trouble">
    <div class="stack tight">${compact ? html`<span title=${button.explains}>${button.label}</span>` : html`<strong>${button.label}</strong><span class="muted small">${button.explains}</span>`}
      ${possible.length > 1 && html`<label><span class="hidden-label">Target of ${button.label}</span><select value=${target} onChange=${(event) => setSelected(event.target.value)}>${possible.map((one) => html`<option key=${one}>${one}</option>`)}</select></label>`}
      ${missing && !compact && html`<span class="small muted">${detail ? `This Workspace has no ${button.target} now.` : "Choose a Workspace first."}</span>`}
    </div>
    <button type="button" class=${compact ? "small" : ""} data-trouble=${button.id} disabled=${busy || missing} onClick=${run} aria-label="Do it: ${button.label}"><${Icon} name="bolt" />Do it</button>
  </li>`;
}

export function TroubleButtons({ detail, compact = false }) {
  const buttons = session.value?.trouble ?? [];
  return html`<ul class="troubles ${compact ? "compact" : ""}">${buttons.map((button) => html`<${TroubleButton} key=${button.id} button=${button} detail=${detail} compact=${compact} />`)}</ul>
    ${compact && log.value[0] && html`<${LogLines} entries=${log.value.slice(0, 3)} />`}`;
}

function LogLines({ entries }) {
  return html`<ul class="log" aria-live="polite">${entries.map((entry) => html`<li key=${entry.at + entry.label}>
    <span class="muted num" title=${clock(entry.at)}>${age(entry.at, now.value)} ago</span>
    <span class="break ${entry.error ? "bad-text" : ""}">${entry.error ? `${entry.label}: ${entry.error}` : sentence(entry.done)}</span></li>`)}</ul>`;
}

function Picture({ detail }) {
  if (!detail) return html`<section class="card"><${Empty}>Choose a Workspace to see what happens to it.<//></section>`;
  return html`<section class="card" aria-label="What happens to ${detail.name}"><header><${Badge} state=${detail.state} /><a href=${links.workspace(detail)}><strong>${key(detail)}</strong></a></header>
    <div class="body stack"><${ChainPicture} detail=${detail} />
      <p class="break" aria-live="polite">${detail.cause ? html`<strong>${detail.cause.reason}</strong> ${sentence(detail.cause.message)}` : sentence(detail.summary)}</p>
      ${detail.next.length > 0 && html`<p class="muted"><strong>Next:</strong> ${sentence(detail.next[0].what)}</p>`}
    </div></section>`;
}

export function Trouble() {
  const selected = workspaces.value.has(chosen.value) ? chosen.value : rows.value[0] ? key(rows.value[0]) : "";
  const [namespace, name] = selected ? selected.split("/") : [null, null];
  const { detail } = useDetail(namespace, name);
  if (!session.value.trouble?.length) return html`<div class="page"><h1 tabindex="-1">Trouble on purpose</h1><div class="card"><${Empty}>Only \`kaito up\` offers this.<//></div></div>`;
  return html`<div class="page">
    <div class="page-head"><div class="title"><h1 tabindex="-1">Trouble on purpose</h1><p class="muted">Break something and watch how the controllers repair it. Nothing here costs money.</p></div></div>
    <div class="field narrow"><label for="trouble-workspace">Workspace</label><select id="trouble-workspace" value=${selected} disabled=${rows.value.length === 0} onChange=${(event) => (chosen.value = event.target.value)}>
      ${rows.value.length === 0 && html`<option>${loaded.value ? "There is no Workspace yet" : "Loading"}</option>`}
      ${rows.value.map((row) => html`<option key=${key(row)} value=${key(row)} selected=${key(row) === selected}>${key(row)}</option>`)}</select></div>
    <${Picture} detail=${detail} />
    <div class="columns">
      <section class="card" aria-label="Buttons"><header><h2>What can go wrong</h2></header><div class="body"><${TroubleButtons} detail=${detail} /></div></section>
      <section class="card" aria-label="Log"><header><h2>What was done</h2></header><div class="body">${log.value.length ? html`<${LogLines} entries=${log.value} />` : html`<p class="muted">Nothing yet.</p>`}</div></section>
    </div>
  </div>`;
}
