// Small parts that several views use: icons, badges, copy buttons, tabs, dialogs.
import { html, useId, useLayoutEffect, useRef, useState } from "./dom.js";
import { now } from "./state.js";
import { age, clock } from "./format.js";

const ICONS = {
  list: "M4 5h12M4 10h12M4 15h12",
  plus: "M10 4v12M4 10h12",
  chat: "M3.5 4.5h13v9h-7l-3.5 3v-3h-2.5z",
  coin: "M3.5 16.5V11M8 16.5V7M12.5 16.5V9.5M17 16.5V4",
  bolt: "M11 2.5 4.5 11.5H10L9 17.5l6.5-9H10z",
  check: "m4.5 10.5 3.5 3.5 7.5-8",
  cross: "m5 5 10 10M15 5 5 15",
  spinner: "M10 3.5a6.5 6.5 0 1 0 6.5 6.5",
  dash: "M5 10h10",
  question: "M7 7.5a3 3 0 1 1 4.2 2.7c-.8.4-1.2.9-1.2 1.8M10 15.3v.2",
  warn: "M10 3 17.5 16.5h-15zM10 8.5v3.5M10 14.3v.1",
  pause: "M7 5v10M13 5v10",
  trash: "M4 6h12M8 6V4h4v2M6 6l.7 10.5h6.6L14 6",
  copy: "M7.5 7.5h9v9h-9zM12.5 7.5v-4h-9v9h4",
  search: "M9 3.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11M13 13l4 4",
  scale: "M4 8h5v8H4zM11 4h5v12h-5z",
  sun: "M10 6.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7M10 2v1.5M10 16.5V18M2 10h1.5M16.5 10H18M4.3 4.3l1.1 1.1M14.6 14.6l1.1 1.1M15.7 4.3l-1.1 1.1M5.4 14.6l-1.1 1.1",
  moon: "M16.5 11.5A7 7 0 0 1 8.5 3.5a7 7 0 1 0 8 8z",
  auto: "M10 3a7 7 0 1 0 0 14zM10 3a7 7 0 0 1 0 14",
  chevron: "m8 5 5 5-5 5",
  Workspace: "M3.5 6.5 10 3l6.5 3.5v7L10 17l-6.5-3.5zM3.5 6.5 10 10l6.5-3.5M10 10v7",
  Claim: "M5 3h7l3.5 3.5V17H5zM12 3v4h3.5M7.5 11h5M7.5 14h5",
  Pool: "m10 3 7 3.5-7 3.5-7-3.5zM3 10l7 3.5 7-3.5M3 13.5 10 17l7-3.5",
  Node: "M3.5 4h13v5h-13zM3.5 11h13v5h-13zM6.5 6.5h.1M6.5 13.5h.1",
  GPU: "M5.5 5.5h9v9h-9zM8.5 8.5h3v3h-3zM8 2.5v3M12 2.5v3M8 14.5v3M12 14.5v3M2.5 8h3M2.5 12h3M14.5 8h3M14.5 12h3",
  Pod: "M10 2.5 16.5 6.2v7.6L10 17.5l-6.5-3.7V6.2z",
  Server: "m4 6 4 4-4 4M10 14.5h6",
  Answer: "M3.5 4.5h13v9h-7l-3.5 3v-3h-2.5zM7 8h6M7 10.5h4",
};

export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 20 20" aria-hidden="true"><path d=${ICONS[name] ?? ICONS.dash} /></svg>`;
}

/** Words, tone and icon of the states of a Workspace. */
export const STATES = {
  failing: { label: "Failing", tone: "bad", icon: "warn" },
  progressing: { label: "In progress", tone: "busy", icon: "spinner" },
  ready: { label: "Ready", tone: "ok", icon: "check" },
  succeeded: { label: "Finished", tone: "ok", icon: "check" },
  stopped: { label: "Stopped", tone: "idle", icon: "pause" },
  deleting: { label: "Deleting", tone: "idle", icon: "trash" },
};
/** The same for the parts of a chain. */
export const PART_STATES = {
  ok: { label: "OK", tone: "ok", icon: "check" },
  waiting: { label: "Waiting", tone: "busy", icon: "spinner" },
  failed: { label: "Failed", tone: "bad", icon: "cross" },
  absent: { label: "Not yet", tone: "idle", icon: "dash" },
  unknown: { label: "Not readable", tone: "warn", icon: "question" },
};

export function Badge({ state, table = STATES }) {
  const one = table[state] ?? { label: state, tone: "idle", icon: "question" };
  return html`<span class="badge s-${one.tone} ${one.icon === "spinner" ? "spin" : ""}"><${Icon} name=${one.icon} />${one.label}</span>`;
}

/** The age of something; updated every second. The exact time is its title. */
export function Age({ at }) {
  return at ? html`<time dateTime=${at} title=${clock(at)} class="num">${age(at, now.value)}</time>` : html`<span>–</span>`;
}

export function CopyButton({ text, label = "Copy", small = true, className = "" }) {
  const [copied, setCopied] = useState(false);
  async function copy() {
    await copyText(typeof text === "function" ? text() : text);
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  }
  return html`<button type="button" class="${small ? "small" : ""} ${className}" onClick=${copy}>
    <${Icon} name=${copied ? "check" : "copy"} /><span aria-live="polite">${copied ? "Copied" : label}</span>
  </button>`;
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // The clipboard API needs https or localhost; an address of the network has neither.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

export function Code({ text, wrap = false }) {
  return html`<div class="code ${wrap ? "wrap-lines" : ""}">
    <pre tabindex="0">${text}</pre>
    <${IconCopy} text=${text} />
  </div>`;
}

export function IconCopy({ text }) {
  const [copied, setCopied] = useState(false);
  async function copy() {
    await copyText(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  }
  return html`<button type="button" class="small plain" aria-label=${copied ? "Copied" : "Copy"} title="Copy" onClick=${copy}>
    <${Icon} name=${copied ? "check" : "copy"} />
  </button>`;
}

/** Tabs with the keyboard behavior of the ARIA pattern: arrows change the tab. */
export function Tabs({ tabs, current, onChange, label }) {
  const refs = useRef({});
  function move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = tabs.findIndex((tab) => tab.id === current);
    const next = tabs[(at + step + tabs.length) % tabs.length];
    onChange(next.id);
    refs.current[next.id]?.focus();
  }
  return html`<div role="tablist" aria-label=${label} onKeyDown=${move}>
    ${tabs.map((tab) => html`<button key=${tab.id} type="button" role="tab" id="tab-${tab.id}" aria-selected=${tab.id === current}
      aria-controls=${tab.id === current ? "panel" : undefined} tabindex=${tab.id === current ? 0 : -1}
      ref=${(element) => (refs.current[tab.id] = element)} onClick=${() => onChange(tab.id)}>${tab.label}</button>`)}
  </div>`;
}

/** A modal dialog. Closing without an answer calls onClose. */
export function Dialog({ title, children, confirm, danger, busy, onConfirm, onClose }) {
  const ref = useRef(null);
  const id = useId();
  useLayoutEffect(() => {
    ref.current.showModal();
  }, []);
  return html`<dialog ref=${ref} aria-labelledby=${id} onClose=${onClose}>
    <form onSubmit=${(event) => { event.preventDefault(); onConfirm(); }}>
      <h2 id=${id}>${title}</h2>
      ${children}
      <div class="row">
        <button type="button" class="end" onClick=${() => ref.current.close()}>Cancel</button>
        <button type="submit" class="primary ${danger ? "danger" : ""}" disabled=${busy}>${confirm}</button>
      </div>
    </form>
  </dialog>`;
}

export function Field({ label, help, error, children }) {
  const id = useId();
  const describedBy = help || error ? `${id}-help` : undefined;
  return html`<div class="field">
    <label for=${id}>${label}</label>
    ${children({ id, "aria-describedby": describedBy, "aria-invalid": error ? "true" : undefined })}
    ${(help || error) && html`<div id="${id}-help">
      ${error && html`<div class="wrong">${error}</div>`}
      ${help && html`<div class="help">${help}</div>`}
    </div>`}
  </div>`;
}

/** Colors keys, values and comments of YAML. */
export function Yaml({ text }) {
  const lines = text.split("\n").map((line, index) => {
    const comment = line.match(/^(\s*)(#.*)$/);
    if (comment) return html`<span key=${index} class="c">${line}${"\n"}</span>`;
    const pair = line.match(/^(\s*(?:- )?)([\w./-]+:)(\s.*)?$/);
    if (pair) return html`<span key=${index}>${pair[1]}<span class="k">${pair[2]}</span><span class="s">${pair[3] ?? ""}</span>${"\n"}</span>`;
    return html`<span key=${index}>${line}${"\n"}</span>`;
  });
  return html`<div class="code yaml"><pre tabindex="0">${lines}</pre><${IconCopy} text=${text} /></div>`;
}

export function Empty({ children }) {
  return html`<div class="empty">${children}</div>`;
}

/** What failed, in place of the content that could not be loaded. */
export function Failure({ error }) {
  return html`<div class="card"><div class="body row" role="alert"><span class="badge s-bad"><${Icon} name="warn" />Error</span><span class="break">${error.message}</span></div></div>`;
}
