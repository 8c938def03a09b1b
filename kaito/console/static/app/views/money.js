// Cost and capacity: now, over time, by namespace, without use, and the quota that is left.
import { html, computed, useEffect } from "../dom.js";
import { api } from "../api.js";
import { currency, money, workspaces } from "../state.js";
import { links } from "../router.js";
import { clock, hourly, money as amount, plural, sentence } from "../format.js";
import { Empty } from "../ui.js";
import { Line } from "./charts.js";

const byState = computed(() => [...workspaces.value.values()].filter((row) => row.hourlyCost > 0).sort((a, b) => b.hourlyCost - a.hourlyCost).slice(0, 8));

function Figure({ label, value, note, tone = "" }) {
  return html`<div class="card figure"><dt>${label}</dt><dd class="num ${tone}">${value}</dd>${note && html`<dd class="muted small">${note}</dd>`}</div>`;
}

function Bars({ items, unit }) {
  const most = Math.max(...items.map((item) => item.value), 0.0001);
  return html`<ul class="bars">${items.map((item) => html`<li key=${item.label}>
    <span class="clip">${item.href ? html`<a href=${item.href}>${item.label}</a>` : item.label}</span>
    <div class="meter"><span style=${{ width: `${(item.value / most) * 100}%` }}></span></div><span class="num">${hourly(item.value, unit)}</span></li>`)}</ul>`;
}

function Useless({ nodes, unit }) {
  return html`<section class="card" aria-label="Without use now"><header><h2>Without use now</h2></header>
    ${nodes.length === 0 ? html`<${Empty}>Every node is in use.<//>` : html`<div class="table-scroll" tabindex="0" role="region" aria-label="Nodes without use"><table>
      <thead><tr><th>Node</th><th>Why</th><th>Workspace</th><th class="num">Cost</th></tr></thead>
      <tbody>${nodes.map((one) => {
        const [namespace, name] = (one.workspace ?? "").split("/");
        return html`<tr key=${one.node}><td class="mono">${one.node}</td><td>${sentence(one.reason)}</td>
          <td>${name ? html`<a href=${links.workspace({ namespace, name })}>${one.workspace}</a>` : html`<span class="muted">none</span>`}</td><td class="num nowrap">${hourly(one.hourly, unit)}</td></tr>`;
      })}</tbody></table></div>`}
  </section>`;
}

function Quota({ quota }) {
  return html`<section class="card" aria-label="Quota"><header><h2>Quota</h2></header>
    ${!quota ? html`<${Empty}>The quota of the cloud is unknown here.<//>` : quota.length === 0 ? html`<${Empty}>No quota is reported.<//>` : html`<ul class="body bars">${quota.map((one) => {
      const share = one.limit > 0 ? one.used / one.limit : 1;
      return html`<li key=${one.family}><span class="clip" title=${one.family}>${one.family}</span>
        <div class="meter ${share >= 0.9 ? "full" : ""}"><span style=${{ width: `${Math.min(100, share * 100)}%` }}></span></div><span class="num">${one.used.toLocaleString("en-US")} of ${one.limit.toLocaleString("en-US")}</span></li>`;
    })}</ul>`}
  </section>`;
}

export function Money() {
  useEffect(() => {
    api.money().then((data) => (money.value = data), () => {});
  }, []);
  const data = money.value;
  if (!data) return html`<div class="page"><h1 tabindex="-1">Cost and capacity</h1><p class="muted" data-loading>Loading</p></div>`;
  const unit = data.currency ?? currency.value;
  const history = (data.history ?? []).filter((point) => point[1] != null).map(([time, value]) => [Date.parse(time) / 1000, value]);
  const at = (value) => clock(new Date(value * 1000).toISOString()).replace(/:\d\d$/, "");
  return html`<div class="page">
    <div class="page-head"><h1 tabindex="-1">Cost and capacity</h1></div>
    <dl class="figure-grid">
      <${Figure} label="Cost now" value=${hourly(data.hourly, unit)} note=${data.hourly == null ? null : `${amount(data.hourly * 730, unit)} in a month like this`} />
      <${Figure} label="Of that without use" value=${hourly(data.idleHourly, unit)} tone=${data.idleHourly > 0 ? "warn-text" : ""} note=${data.hourly > 0 && data.idleHourly != null ? `${Math.round((data.idleHourly / data.hourly) * 100)} % of the cost` : null} />
      <${Figure} label="Cost so far" value=${data.accumulated == null ? "unknown" : amount(data.accumulated, unit)} note="of the nodes that exist" />
      <${Figure} label="Unknown price" value=${plural(data.unknownNodes ?? 0, "node")} note=${data.unknownNodes > 0 ? "not part of the sums" : "every price is known"} />
    </dl>
    <section class="card" aria-label="Cost over time"><header><h2>Cost over time</h2></header><div class="body">
      <${Line} points=${history} label="Cost per hour" formatX=${at} formatY=${(value) => value.toFixed(2)} zero /></div></section>
    <div class="halves">
      <section class="card" aria-label="By namespace"><header><h2>By namespace</h2></header>
        ${data.byNamespace?.length ? html`<div class="body"><${Bars} unit=${unit} items=${data.byNamespace.map((one) => ({ label: one.namespace, value: one.hourly ?? 0 }))} /></div>` : html`<${Empty}>No node costs anything now.<//>`}</section>
      <section class="card" aria-label="Most expensive Workspaces"><header><h2>Most expensive Workspaces</h2></header>
        ${byState.value.length ? html`<div class="body"><${Bars} unit=${unit} items=${byState.value.map((row) => ({ label: `${row.namespace}/${row.name}`, value: row.hourlyCost, href: links.workspace(row) }))} /></div>` : html`<${Empty}>No Workspace costs anything now.<//>`}</section>
    </div>
    <${Useless} nodes=${data.useless ?? []} unit=${unit} />
    <${Quota} quota=${data.quota} />
  </div>`;
}
