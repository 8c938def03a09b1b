// The list of Workspaces: counts, search, filters, and a virtualized table that renders only the visible rows.
import { html, computed, signal, useEffect, useLayoutEffect, useRef, useState } from "../dom.js";
import { currency, key, loaded, money, now, workspaces } from "../state.js";
import { go, links } from "../router.js";
import { age, DASH, hourly, plural, sentence } from "../format.js";
import { Badge, Empty, Icon, STATES } from "../ui.js";

const filter = { text: signal(""), state: signal(""), namespace: signal(""), task: signal(""), sort: signal("attention") };

const ORDER = Object.keys(STATES);
const SORTS = {
  attention: { label: "Attention first", by: (a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || byName(a, b) },
  name: { label: "Name", by: byName },
  newest: { label: "Newest first", by: (a, b) => (a.created < b.created ? 1 : a.created > b.created ? -1 : byName(a, b)) },
  cost: { label: "Most expensive first", by: (a, b) => (b.hourlyCost ?? -1) - (a.hourlyCost ?? -1) || byName(a, b) },
};

function byName(a, b) {
  if (a.namespace !== b.namespace) return a.namespace < b.namespace ? -1 : 1;
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0;
}

const all = computed(() => [...workspaces.value.values()]);

function matches(row, words) {
  const text = `${row.namespace}/${row.name} ${row.model} ${row.instanceType} ${row.reason ?? ""} ${row.summary ?? ""}`.toLowerCase();
  return words.every((word) => text.includes(word));
}

/** Rows that pass every filter but that of the state; the chips of the states count them. */
const candidates = computed(() => {
  const words = filter.text.value.toLowerCase().split(/\s+/).filter(Boolean);
  const namespace = filter.namespace.value;
  const task = filter.task.value;
  return all.value.filter((row) => (!namespace || row.namespace === namespace) && (!task || row.task === task) && matches(row, words));
});

const rows = computed(() => {
  const state = filter.state.value;
  const found = state ? candidates.value.filter((row) => row.state === state) : [...candidates.value];
  return found.sort(SORTS[filter.sort.value].by);
});

const counts = computed(() => {
  const found = Object.fromEntries(ORDER.map((state) => [state, 0]));
  for (const row of candidates.value) found[row.state] = (found[row.state] ?? 0) + 1;
  return found;
});

const namespaces = computed(() => [...new Set(all.value.map((row) => row.namespace))].sort());

function Chips() {
  const total = candidates.value.length;
  const chip = (state, label, count) => html`<button type="button" class="chip ${state ? `tone-${STATES[state].tone}` : ""}" key=${state}
    aria-pressed=${filter.state.value === state} onClick=${() => (filter.state.value = filter.state.value === state ? "" : state)}>
    <span class="chip-count num">${count.toLocaleString("en-US")}</span><span>${label}</span></button>`;
  return html`<div class="chips" role="group" aria-label="Filter by state">
    ${chip("", "All", total)}
    ${ORDER.filter((state) => counts.value[state] || filter.state.value === state).map((state) => chip(state, STATES[state].label, counts.value[state]))}
  </div>`;
}

function Filters() {
  const search = useRef(null);
  useEffect(() => {
    function focus(event) {
      if (event.key !== "/" || /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? "")) return;
      event.preventDefault();
      search.current.focus();
    }
    addEventListener("keydown", focus);
    return () => removeEventListener("keydown", focus);
  }, []);
  const select = (label, target, options) => html`
    <select aria-label=${label} value=${target.value} onChange=${(event) => (target.value = event.target.value)}>
      ${options.map(([value, text]) => html`<option key=${value} value=${value} selected=${value === target.value}>${text}</option>`)}
    </select>`;
  return html`<div class="filters" role="search">
    <label class="search"><span class="hidden-label">Search</span><${Icon} name="search" />
      <input ref=${search} type="search" placeholder="Search name, model, instance type, reason" value=${filter.text.value}
        onInput=${(event) => (filter.text.value = event.target.value)} /></label>
    ${select("Namespace", filter.namespace, [["", "All namespaces"], ...namespaces.value.map((one) => [one, one])])}
    ${select("Task", filter.task, [["", "Serving and tuning"], ["inference", "Serving"], ["tuning", "Tuning"]])}
    ${select("Order", filter.sort, Object.entries(SORTS).map(([id, sort]) => [id, sort.label]))}
  </div>`;
}

function Row({ row, index }) {
  const copies = row.copies ? `${row.copies.ready}/${row.copies.wanted}` : DASH;
  return html`<div role="row" class="list-row" aria-rowindex=${index + 2} data-name=${key(row)} onClick=${(event) => { if (!event.target.closest("a")) go(links.workspace(row)); }}>
    <div role="cell" class="c-state"><${Badge} state=${row.state} /></div>
    <div role="cell" class="c-name"><a class="clip" title=${row.name} href=${links.workspace(row)} data-row=${index}>${row.name}</a><span class="muted clip">${row.namespace}</span></div>
    <div role="cell" class="c-model"><span class="clip" title=${row.model}>${row.model}</span><span class="muted clip">${row.instanceType || "existing nodes"}</span></div>
    <div role="cell" class="c-nodes num" title="Ready and wanted nodes">${row.nodes.ready}/${row.nodes.wanted}</div>
    <div role="cell" class="c-copies num" title="Ready and wanted copies">${row.task === "tuning" ? DASH : copies}</div>
    <div role="cell" class="c-why"><span title=${row.summary} class="clip-2 ${row.state === "failing" ? "" : "muted"}">${row.reason ? html`<strong>${row.reason}</strong> ` : ""}${sentence(row.summary)}</span></div>
    <div role="cell" class="c-cost num">${row.hourlyCost == null ? html`<span class="muted">unknown</span>` : hourly(row.hourlyCost, row.currency ?? currency.value)}</div>
    <div role="cell" class="c-age num muted">${age(row.since ?? row.created, now.value)}</div>
  </div>`;
}

const HEADS = [
  ["c-state", "State"], ["c-name", "Name"], ["c-model", "Model, instance type"], ["c-nodes num", "Nodes"], ["c-copies num", "Copies"],
  ["c-why", "What is happening"], ["c-cost num", "Cost"], ["c-age num", "Since"],
];

const NARROW = matchMedia("(max-width: 820px)");
const OVERSCAN = 6;

function useNarrow() {
  const [narrow, setNarrow] = useState(NARROW.matches);
  useEffect(() => {
    const update = () => setNarrow(NARROW.matches);
    NARROW.addEventListener("change", update);
    return () => NARROW.removeEventListener("change", update);
  }, []);
  return narrow;
}

/** Renders the rows in and near the visible part of the scrolling page; `height` is that of one row in pixels. */
function VirtualRows({ items, height }) {
  const box = useRef(null);
  const [range, setRange] = useState([0, 30]);
  useLayoutEffect(() => {
    const scroller = box.current.closest("main");
    function measure() {
      const top = scroller.getBoundingClientRect().top - box.current.getBoundingClientRect().top;
      const first = Math.max(0, Math.floor(top / height) - OVERSCAN);
      const last = Math.ceil((top + scroller.clientHeight) / height) + OVERSCAN;
      setRange((old) => (old[0] === first && old[1] === last ? old : [first, last]));
    }
    measure();
    scroller.addEventListener("scroll", measure, { passive: true });
    addEventListener("resize", measure);
    return () => {
      scroller.removeEventListener("scroll", measure);
      removeEventListener("resize", measure);
    };
  }, [height, items.length]);

  /** Arrow keys move between rows, also to rows that are not rendered yet. */
  function move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const at = Number(event.target.dataset?.row);
    if (!step || Number.isNaN(at)) return;
    event.preventDefault();
    const next = Math.min(items.length - 1, Math.max(0, at + step));
    const focus = () => box.current.querySelector(`[data-row="${next}"]`);
    focus()?.focus();
    focus()?.scrollIntoView({ block: "nearest" });
  }

  const [first, last] = range;
  const visible = items.slice(first, last);
  return html`<div ref=${box} role="rowgroup" class="list-rows" style=${{ height: `${items.length * height}px` }} onKeyDown=${move}>
    <div class="list-window" role="presentation" style=${{ transform: `translateY(${first * height}px)` }}>
      ${visible.map((row, index) => html`<${Row} key=${key(row)} row=${row} index=${first + index} />`)}
    </div>
  </div>`;
}

function Summary() {
  const data = money.value;
  if (!data) return null;
  const idle = data.idleHourly;
  return html`<dl class="figures">
    <div><dt>Cost now</dt><dd class="num">${hourly(data.hourly, data.currency)}</dd></div>
    <div><dt>Of that without use</dt><dd class="num ${idle > 0 ? "warn-text" : ""}">${hourly(idle, data.currency)}</dd></div>
    ${data.unknownNodes > 0 && html`<div><dt>Nodes of unknown price</dt><dd class="num">${data.unknownNodes}</dd></div>`}
  </dl>`;
}

export function Overview() {
  const narrow = useNarrow();
  const items = rows.value;
  return html`<div class="page">
    <div class="page-head">
      <div class="title"><h1 tabindex="-1">Workspaces</h1></div>
      <${Summary} />
      <div class="row"><a class="button primary" href=${links.create}><${Icon} name="plus" />New Workspace</a></div>
    </div>
    <${Chips} />
    <${Filters} />
    <div class="hidden-label" role="status">${plural(items.length, "Workspace")} shown</div>
    ${items.length > 0
      ? html`<div class="card list" role="table" aria-label="Workspaces" aria-rowcount=${items.length + 1}>
          <div role="rowgroup" class="list-head"><div role="row" class="list-row" aria-rowindex="1">
            ${HEADS.map(([name, text]) => html`<div key=${name} role="columnheader" class=${name}>${text}</div>`)}
          </div></div>
          <${VirtualRows} items=${items} height=${narrow ? 104 : 52} />
        </div>`
      : html`<div class="card"><${Nothing} /></div>`}
  </div>`;
}

function Nothing() {
  if (!loaded.value) return html`<${Empty}><p data-loading>Loading the Workspaces</p><//>`;
  if (workspaces.value.size > 0) {
    const clear = () => Object.entries(filter).forEach(([name, target]) => { if (name !== "sort") target.value = ""; });
    return html`<${Empty}><p>No Workspace matches the search.</p><button type="button" onClick=${clear}>Show all</button><//>`;
  }
  return html`<${Empty}><p>There is no Workspace yet. A Workspace is a model with the GPU nodes that it needs.</p>
    <a class="button primary" href=${links.create}><${Icon} name="plus" />Make the first one</a><//>`;
}
