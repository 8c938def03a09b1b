// Charts: the waterfall of a start, and a line for values over time or steps.
import { html, useId } from "../dom.js";
import { now } from "../state.js";
import { duration, precise, seconds, sentence } from "../format.js";

const NICE = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400];

function niceStep(total, count) {
  return NICE.find((step) => total / step <= count) ?? Math.ceil(total / count / 86400) * 86400;
}

/** Bars on a common time axis; a bar that still runs ends now. */
export function Waterfall({ bars }) {
  const known = bars.filter((bar) => bar.start);
  if (!known.length) return html`<p class="muted">Nothing has started yet.</p>`;
  const first = Math.min(...known.map((bar) => seconds(bar.start)));
  const last = Math.max(...known.map((bar) => (bar.end ? seconds(bar.end) : now.value)));
  const total = Math.max(1, last - first);
  const step = niceStep(total, 6);
  const ticks = Array.from({ length: Math.floor(total / step) + 1 }, (_, index) => index * step);
  const percent = (value) => `${((value - first) / total) * 100}%`;
  return html`<div class="waterfall">
    <div class="waterfall-row waterfall-axis" aria-hidden="true"><span></span>
      <div class="track">${ticks.map((tick) => html`<span key=${tick} class="tick num" style=${{ left: percent(first + tick) }}>${duration(tick)}</span>`)}</div><span></span></div>
    <ul>${bars.map((bar) => {
      const start = bar.start ? seconds(bar.start) : null;
      const end = bar.end ? seconds(bar.end) : now.value;
      const word = { done: "", running: "running", failed: "failed" }[bar.state];
      return html`<li key=${bar.label} class="waterfall-row">
        <span class="waterfall-label">${sentence(`${bar.label} `)}</span>
        <div class="track">${start !== null && html`<span class="bar bar-${bar.state}" style=${{ left: percent(start), width: `${Math.max(0.4, ((end - start) / total) * 100)}%` }}></span>`}</div>
        <span class="waterfall-time num">${start === null ? "–" : precise(end - start)}${word && html` <span class="small ${bar.state === "failed" ? "bad-text" : "muted"}">${word}</span>`}</span>
        ${bar.detail && html`<span class="waterfall-detail muted small">${bar.detail}</span>`}
      </li>`;
    })}</ul>
  </div>`;
}

/** A line through [x, y] points with its first, last and extreme values as text. */
export function Line({ points, label, formatX = String, formatY = String, zero = false }) {
  const id = useId();
  if (points.length < 2) return html`<p class="muted">Not enough values yet.</p>`;
  const width = 640;
  const height = 180;
  const pad = { left: 6, right: 6, top: 12, bottom: 8 };
  const xs = points.map((point) => point[0]);
  const ys = points.map((point) => point[1]);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  const [low, high] = [zero ? 0 : Math.min(...ys), Math.max(...ys)];
  const span = high - low || 1;
  const x = (value) => pad.left + ((value - x0) / (x1 - x0 || 1)) * (width - pad.left - pad.right);
  const y = (value) => pad.top + (1 - (value - low) / span) * (height - pad.top - pad.bottom);
  const path = points.map((point, index) => `${index ? "L" : "M"}${x(point[0]).toFixed(1)} ${y(point[1]).toFixed(1)}`).join("");
  const area = `${path}L${x(x1)} ${height - pad.bottom}L${x(x0)} ${height - pad.bottom}Z`;
  const summary = `${label}: from ${formatY(ys[0])} to ${formatY(ys.at(-1))}, lowest ${formatY(Math.min(...ys))}, highest ${formatY(Math.max(...ys))}`;
  return html`<figure class="line-chart">
    <div class="line-y num muted small" aria-hidden="true"><span>${formatY(high)}</span><span>${formatY(low + span / 2)}</span><span>${formatY(low)}</span></div>
    <svg viewBox="0 0 ${width} ${height}" preserveAspectRatio="none" role="img" aria-labelledby=${id}>
      <title id=${id}>${summary}</title>
      ${[0, 0.5, 1].map((part) => html`<line key=${part} class="grid-line" x1="0" x2=${width} y1=${y(low + part * span)} y2=${y(low + part * span)} />`)}
      <path class="line-area" d=${area} /><path class="line-path" d=${path} />
    </svg>
    <div class="line-x num muted small" aria-hidden="true"><span>${formatX(x0)}</span><span>${formatX(x1)}</span></div>
  </figure>`;
}
