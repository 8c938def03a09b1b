// One Workspace: why it is not ready, the chain, what took how long, events, YAML, and changes where they are allowed.
import { html, signal, useEffect, useState } from "../dom.js";
import { api } from "../api.js";
import { currency, key, loaded, now, session, toast, workspaces, writes } from "../state.js";
import { go, links, route, setQuery } from "../router.js";
import { age, clock, duration, hourly, money, plural, sentence, until } from "../format.js";
import { Age, Badge, Code, CopyButton, Dialog, Empty, Failure, Field, Icon, Tabs, Yaml } from "../ui.js";
import { ChainParts, ChainPicture } from "./chain.js";
import { Line, Waterfall } from "./charts.js";
import { TroubleButtons } from "./trouble.js";

/** Fetches the detail of a Workspace, and again when its row changed. Returns {detail, error, gone}. */
export function useDetail(namespace, name) {
  const row = workspaces.value.get(`${namespace}/${name}`);
  const [result, setResult] = useState({ detail: null, error: null });
  useEffect(() => {
    if (!name) return undefined;
    const abort = new AbortController();
    api.workspace(namespace, name, abort.signal).then(
      (detail) => setResult({ detail, error: null }),
      (error) => {
        if (error.name !== "AbortError") setResult((old) => ({ detail: error.status === 404 ? null : old.detail, error }));
      },
    );
    return () => abort.abort();
  }, [namespace, name, row]);
  return { ...result, row, gone: loaded.value && !row && result.error?.status === 404 };
}

function Advice({ lines }) {
  return html`<ul class="advice">${lines.map((line, index) => {
    const command = line.match(/^\$\s+(.*)$/);
    return html`<li key=${index}>${command ? html`<${Code} text=${command[1]} />` : sentence(line)}</li>`;
  })}</ul>`;
}

function NextSteps({ steps }) {
  return html`<ul class="next">${steps.map((step) => html`<li key=${step.what}>
    ${step.at && html`<span class="tag num" title=${clock(step.at)}>${until(step.at, now.value)}</span> `}${sentence(step.what)}
  </li>`)}</ul>`;
}

/** The root cause on top, in words, with what happens next and what the user can do. */
function Cause({ detail }) {
  const { cause } = detail;
  const tone = { failing: "bad", ready: "ok", succeeded: "ok", progressing: "busy" }[detail.state] ?? "idle";
  const hasMore = detail.next.length > 0 || detail.advice.length > 0;
  return html`<section class="card cause cause-${tone}" aria-label="State">
    <div class="body stack">
      <div class="stack tight">
        <div class="row wrap"><${Badge} state=${detail.state} /><strong class="cause-title">${cause ? cause.reason : sentence(detail.summary)}</strong>
          ${cause && html`<span class="muted">on ${cause.kind} <span class="mono break">${cause.name}</span>${cause.since ? html`, for <${Age} at=${cause.since} />` : ""}</span>`}
          ${detail.serving && detail.state !== "ready" && html`<span class="badge s-ok"><${Icon} name="check" />Still answers</span>`}
        </div>
        ${cause && html`<p class="cause-message break">${sentence(cause.message)}</p>`}
      </div>
      ${hasMore && html`<div class="cause-columns">
        ${detail.next.length > 0 && html`<div class="stack tight"><h2>What happens next</h2><${NextSteps} steps=${detail.next} /></div>`}
        ${detail.advice.length > 0 && html`<div class="stack tight"><h2>${detail.state === "ready" ? "How to use it" : "What you can do"}</h2><${Advice} lines=${detail.advice} /></div>`}
      </div>`}
      ${detail.notes.length > 0 && html`<ul class="muted small">${detail.notes.map((note) => html`<li key=${note}>${note}</li>`)}</ul>`}
    </div>
  </section>`;
}

function Facts({ detail }) {
  const cost = detail.cost;
  const unit = cost.currency ?? currency.value;
  return html`<section class="card" aria-label="Facts"><header><h2>Facts</h2></header><div class="body"><dl class="facts">
    <dt>Task</dt><dd>${detail.task === "tuning" ? "Tuning" : "Serving"}</dd>
    <dt>Model</dt><dd>${detail.model}</dd>
    <dt>Instance type</dt><dd>${detail.instanceType || "existing nodes"}</dd>
    <dt>Nodes</dt><dd class="num">${detail.nodes.ready} of ${detail.nodes.wanted} ready</dd>
    ${detail.copies && html`<dt>Copies</dt><dd class="num">${detail.copies.ready} of ${detail.copies.wanted} ready</dd>`}
    <dt>Created</dt><dd title=${clock(detail.created)}><${Age} at=${detail.created} /> ago</dd>
    <dt>Cost now</dt><dd class="num">${hourly(cost.hourly, unit)}</dd>
    <dt>Cost so far</dt><dd class="num">${cost.accumulated == null ? "unknown" : `${cost.partial ? "at least " : ""}${money(cost.accumulated, unit)}`}</dd>
    ${cost.idle > 0 && html`<dt>Without use</dt><dd class="num warn-text">${hourly(cost.idle, unit)}</dd>`}
    ${detail.adapters.length > 0 && html`<dt>Adapters</dt><dd>${detail.adapters.map((one) => html`<div key=${one.name}>${one.name}${one.strength != null ? html` <span class="muted num">strength ${one.strength}</span>` : ""}</div>`)}</dd>`}
  </dl></div></section>`;
}

const PUSH = { waiting: "waits for the end of the training", running: "in progress", done: "done", failed: "failed" };

function Tuning({ tuning }) {
  if (!tuning) return null;
  const done = tuning.progress == null ? null : Math.round(tuning.progress * 100);
  return html`<section class="card" aria-label="Tuning"><header><h2>Tuning</h2><span class="muted num">${tuning.eta ? `ready ${until(tuning.eta, now.value)}` : ""}</span></header>
    <div class="body stack">
      ${done !== null && html`<div class="stack tight"><div class="row"><span>${tuning.phase ? sentence(`${tuning.phase} `) : "Progress"}</span><span class="end num">${tuning.totalSteps ? `step ${tuning.step ?? 0} of ${tuning.totalSteps} · ` : ""}${done} %</span></div>
        <div class="meter" role="progressbar" aria-label="Progress" aria-valuenow=${done} aria-valuemin="0" aria-valuemax="100"><span style=${{ width: `${done}%` }}></span></div></div>`}
      ${tuning.loss?.length > 0 && html`<div class="stack tight"><h3>Loss by step <span class="muted num">last ${tuning.loss.at(-1)[1].toFixed(3)}</span></h3>
        <${Line} points=${tuning.loss} label="Loss" formatX=${(step) => `step ${Math.round(step)}`} formatY=${(loss) => loss.toFixed(2)} /></div>`}
      ${tuning.evalLoss != null && html`<div class="row wrap"><span class="muted">Loss on data that is not trained on</span><span class="num">${tuning.evalLoss.toFixed(3)}</span></div>`}
      ${tuning.message && html`<p class="break">${tuning.message}</p>`}
      <div class="row wrap"><span class="muted">Push of the adapter</span><span>${PUSH[tuning.push] ?? "not started"}</span></div>
    </div></section>`;
}

function Endpoints({ detail }) {
  if (!detail.endpoints) return null;
  const { url, openai, curl, python } = detail.endpoints;
  return html`<section class="card" aria-label="Call it"><header><h2>Call it</h2></header><div class="body stack">
    <dl class="facts"><dt>Address</dt><dd class="mono">${url}</dd>${openai && html`<dt>OpenAI API</dt><dd class="mono">${openai}</dd>`}</dl>
    ${curl && html`<div class="stack tight"><h3>curl</h3><${Code} text=${curl} wrap /></div>`}
    ${python && html`<div class="stack tight"><h3>Python</h3><${Code} text=${python} wrap /></div>`}
  </div></section>`;
}

const onlyWarnings = signal(false);

function Events({ events }) {
  const shown = [...events].filter((event) => event.warning || !onlyWarnings.value).sort((a, b) => (a.at < b.at ? 1 : -1));
  return html`<section class="card" aria-label="Events"><header><h2>Events</h2>
      <label class="check small"><input type="checkbox" checked=${onlyWarnings.value} onChange=${(event) => (onlyWarnings.value = event.target.checked)} />Only warnings</label></header>
    ${shown.length === 0 ? html`<${Empty}>No events.<//>` : html`<div class="table-scroll" tabindex="0" role="region" aria-label="List of events"><table class="events">
      <thead><tr><th>Age</th><th>Object</th><th>Reason</th><th>Note</th></tr></thead>
      <tbody>${shown.map((event, index) => html`<tr key=${`${event.at}${event.kind}${event.name}${event.reason}${index}`}>
        <td class="muted num nowrap" title=${clock(event.at)}>${age(event.at, now.value)}</td>
        <td><span class="muted">${event.kind}</span> ${event.name}</td>
        <td>${event.warning ? html`<span class="badge s-warn"><${Icon} name="warn" />${event.reason}</span>` : event.reason}</td>
        <td>${event.note}${event.count > 1 ? html` <span class="tag num">${event.count} times</span>` : ""}</td></tr>`)}
      </tbody></table></div>`}
  </section>`;
}

// -- changes ----------------------------------------------------------------------------------------------------------

function useChange(done) {
  const [busy, setBusy] = useState(false);
  const run = async (work, text) => {
    setBusy(true);
    try {
      await work();
      toast(text);
      done();
    } catch (error) {
      toast(error.message, "bad");
    } finally {
      setBusy(false);
    }
  };
  return [busy, run];
}

function ScaleDialog({ detail, onClose }) {
  const [copies, setCopies] = useState(detail.copies?.wanted ?? 1);
  const [busy, run] = useChange(onClose);
  const confirm = () => run(() => api.scale(detail.namespace, detail.name, Number(copies)), `${key(detail)} shall have ${plural(Number(copies), "copy", "copies")}.`);
  return html`<${Dialog} title="Scale ${detail.name}" confirm="Scale" busy=${busy} onConfirm=${confirm} onClose=${onClose}>
    <${Field} label="Copies" help="Each copy needs its own nodes. 0 stops the model and returns its nodes.">
      ${(props) => html`<input ...${props} type="number" min="0" max="128" required value=${copies} onInput=${(event) => setCopies(event.target.value)} />`}
    <//>
  <//>`;
}

function DeleteDialog({ detail, onClose }) {
  const [busy, run] = useChange(onClose);
  const confirm = () => run(() => api.remove(detail.namespace, detail.name), `${key(detail)} is being deleted.`);
  return html`<${Dialog} title="Delete ${detail.name}?" confirm="Delete" danger busy=${busy} onConfirm=${confirm} onClose=${onClose}>
    <p>The model stops answering, and ${detail.nodes.wanted === 1 ? "its node is" : `its ${detail.nodes.wanted} nodes are`} returned to the cloud.</p>
  <//>`;
}

function Actions({ detail }) {
  const [open, setOpen] = useState(null);
  const close = () => setOpen(null);
  const tuning = detail.task === "tuning";
  return html`<div class="row wrap">
    ${!tuning && html`<a class="button ${detail.serving ? "primary" : ""}" href=${links.chat(detail)}><${Icon} name="chat" />Chat</a>`}
    ${writes.value && detail.state !== "deleting" && html`
      ${!tuning && html`<button type="button" onClick=${() => setOpen("scale")}><${Icon} name="scale" />Scale</button>`}
      <button type="button" class="danger" onClick=${() => setOpen("delete")}><${Icon} name="trash" />Delete</button>`}
    ${open === "scale" && html`<${ScaleDialog} detail=${detail} onClose=${close} />`}
    ${open === "delete" && html`<${DeleteDialog} detail=${detail} onClose=${close} />`}
  </div>`;
}

// -- the view ---------------------------------------------------------------------------------------------------------

function Chain({ detail }) {
  return html`<section class="card" aria-label="Chain"><header><h2>From the Workspace to the ${detail.task === "tuning" ? "result" : "answer"}</h2></header>
    <div class="body"><${ChainPicture} detail=${detail} /></div></section>`;
}

function Trace({ id }) {
  if (!id) return null;
  const template = session.value?.links?.trace;
  if (!template) return html`<span class="muted small num">trace ${id}</span>`;
  return html`<a class="small" href=${template.replaceAll("{trace_id}", id)} target="_blank" rel="noreferrer">Trace</a>`;
}

function Times({ detail }) {
  if (!detail.waterfall.length) return null;
  const starts = detail.waterfall.filter((bar) => bar.start);
  const total = starts.length && starts.every((bar) => bar.end)
    ? (Math.max(...starts.map((bar) => Date.parse(bar.end))) - Math.min(...starts.map((bar) => Date.parse(bar.start)))) / 1000 : null;
  return html`<section class="card" aria-label="What took how long"><header><h2>What took how long</h2><span class="muted num">${total === null ? "" : `${duration(total)} in all`}</span><${Trace} id=${detail.traceId} /></header>
    <div class="body"><${Waterfall} bars=${detail.waterfall} /></div></section>`;
}

function Panel({ tab, detail }) {
  if (tab === "events") return html`<${Events} events=${detail.events} />`;
  if (tab === "yaml") return html`<div class="stack"><div class="row"><${CopyButton} text=${detail.yaml} label="Copy YAML" /></div><${Yaml} text=${detail.yaml} /></div>`;
  return html`<div class="columns">
    <div class="stack wide-gap">
      <${Tuning} tuning=${detail.tuning} />
      <section class="card" aria-label="Parts"><header><h2>Each part</h2></header><${ChainParts} detail=${detail} /></section>
      <${Times} detail=${detail} />
    </div>
    <div class="stack wide-gap">
      <${Facts} detail=${detail} />
      ${session.value.trouble?.length > 0 && detail.state !== "deleting" && html`<section class="card" aria-label="Trouble on purpose"><header><h2>Trouble on purpose</h2><a class="small" href=${links.trouble}>What they do</a></header><div class="body"><${TroubleButtons} detail=${detail} compact /></div></section>`}
      <${Endpoints} detail=${detail} />
    </div>
  </div>`;
}

export function WorkspaceView({ parts: [namespace, name] }) {
  const { detail, error, gone } = useDetail(namespace, name);
  const tab = route.value.query.get("tab") ?? "overview";
  const head = html`<div class="title"><div class="crumb"><a href=${links.list}>Workspaces</a> / ${namespace}</div><h1 tabindex="-1">${name}</h1></div>`;
  if (gone) {
    return html`<div class="page"><div class="page-head">${head}</div><div class="card"><${Empty}><p>This Workspace does not exist any more.</p><button type="button" onClick=${() => go(links.list)}>All Workspaces</button><//></div></div>`;
  }
  if (!detail) return html`<div class="page"><div class="page-head">${head}</div>${error ? html`<${Failure} error=${error} />` : html`<p class="muted" data-loading>Loading</p>`}</div>`;
  const warnings = detail.events.filter((event) => event.warning).length;
  const tabs = [
    { id: "overview", label: "Overview" },
    { id: "events", label: html`Events <span class="tag num">${detail.events.length}</span>${warnings > 0 ? html` <span class="badge s-warn num"><${Icon} name="warn" />${warnings}</span>` : ""}` },
    { id: "yaml", label: "YAML" },
  ];
  return html`<div class="page">
    <div class="page-head">${head}<${Actions} detail=${detail} /></div>
    ${error && html`<${Failure} error=${error} />`}
    <${Cause} detail=${detail} />
    <${Chain} detail=${detail} />
    <${Tabs} tabs=${tabs} current=${tab} onChange=${(id) => setQuery("tab", id === "overview" ? "" : id)} label="Parts of the Workspace" />
    <div role="tabpanel" id="panel" aria-labelledby="tab-${tab}"><${Panel} tab=${tab} detail=${detail} /></div>
  </div>`;
}
