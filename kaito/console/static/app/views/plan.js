// The plan of a draft: verdict, refusals, nodes, memory of a GPU, price, time, objects.
import { html } from "../dom.js";
import { bytes, duration, hourly, money } from "../format.js";
import { Icon } from "../ui.js";

const COLORS = { weights: 1, adapters: 2, state: 2, "key-value cache": 2, overhead: 3, free: 4, reserved: 5 };

function color(part, index) {
  return COLORS[part.toLowerCase()] ?? (index % 5) + 1;
}

function Memory({ memory, gpuBytes }) {
  if (!memory?.length) return null;
  const total = gpuBytes ?? memory.reduce((sum, one) => sum + one.bytes, 0);
  return html`<div class="stack tight"><h3>Memory of each GPU <span class="muted num">${bytes(total)}</span></h3>
    <div class="memory" role="img" aria-label="Memory of each GPU: ${memory.map((one) => `${one.part} ${bytes(one.bytes)}`).join(", ")}">
      ${memory.map((one, index) => html`<span key=${one.part} class="fill-${color(one.part, index)}" style=${{ width: `${(one.bytes / total) * 100}%` }}></span>`)}</div>
    <ul class="legend">${memory.map((one, index) => html`<li key=${one.part}><span class="swatch fill-${color(one.part, index)}"></span><span class="sentence">${one.part}</span><span class="num end">${bytes(one.bytes)}</span></li>`)}</ul></div>`;
}

function Refusals({ refusals }) {
  if (!refusals.length) return null;
  return html`<ul class="refusals">${refusals.map((one) => html`<li key=${one.field + one.message}><${Icon} name="warn" /><span class="break">${one.field && html`<code>${one.field}</code> `}${one.message}</span></li>`)}</ul>`;
}

function Result({ plan }) {
  const time = plan.timeToReady;
  return html`
    ${plan.nodes != null && plan.ok && html`<dl class="facts">
      <dt>Nodes</dt><dd>${plan.nodes === 0 ? "none" : `${plan.nodes} × ${plan.instanceType ?? "existing"}`}</dd>
      <dt>Price</dt><dd class="num">${hourly(plan.hourly, plan.currency)}</dd>
      <dt>In a month</dt><dd class="num">${money(plan.monthly, plan.currency)}</dd>
      ${time && html`<dt>Ready after</dt><dd class="num">about ${duration(time.seconds)}</dd>`}
    </dl>`}
    <${Memory} memory=${plan.memory} gpuBytes=${plan.gpuBytes} />
    ${plan.warnings?.length > 0 && html`<ul class="warnings">${plan.warnings.map((one) => html`<li key=${one} class="break">${one}</li>`)}</ul>`}
    ${plan.objects?.length > 0 && html`<details><summary>Objects <span class="tag num">${plan.objects.length}</span></summary><ul class="objects">${plan.objects.map((one) => html`<li key=${one.kind + one.name}><span class="muted">${one.action}</span> ${one.kind} <span class="mono break">${one.name || "(name is generated)"}</span></li>`)}</ul></details>`}
    ${plan.text && html`<details><summary>As text, like <code>kaito plan</code></summary><div class="code"><pre tabindex="0">${plan.text}</pre></div></details>`}`;
}

function verdict({ plan, busy, error, chosen }) {
  if (!chosen) return ["idle", "question", "Choose a model"];
  if (error) return ["bad", "warn", "No plan"];
  if (!plan || busy) return ["busy", "spinner", "Planning"];
  if (plan.ok) return ["ok", "check", "It fits"];
  return ["bad", "cross", "Refused"];
}

export function PlanPanel(props) {
  const { plan, error, chosen, children } = props;
  const [tone, icon, word] = verdict(props);
  return html`<section class="card plan" aria-label="Plan"><header><h2>Plan</h2><span class="badge s-${tone} ${icon === "spinner" ? "spin" : ""}" role="status" data-verdict=${word}><${Icon} name=${icon} />${word}</span></header>
    <div class="body stack">
      ${error && chosen && html`<p class="bad-text break" role="alert">${error.message}</p>`}
      ${plan && chosen && !error && html`<${Refusals} refusals=${plan.refusals} /><${Result} plan=${plan} />`}
      ${!chosen && html`<p class="muted">Choose a model to see its nodes, memory and price.</p>`}
      <div class="stack tight">${children}</div>
    </div></section>`;
}
