// Mounts the console: navigation, banner, and the view of the address.
import { html, render, useEffect, useRef } from "./dom.js";
import { dismiss, money, now, problem, recovered, session, setTheme, showTheme, start, theme, toasts, workspaces, currency } from "./state.js";
import { links, route } from "./router.js";
import { age, hourly } from "./format.js";
import { Icon } from "./ui.js";
import { Overview } from "./views/overview.js";
import { WorkspaceView } from "./views/workspace.js";
import { Chat } from "./views/chat.js";
import { Make } from "./views/make.js";
import { Money } from "./views/money.js";
import { Trouble } from "./views/trouble.js";

const PAGES = [
  { id: "", href: links.list, label: "Workspaces", icon: "list", view: Overview },
  { id: "new", href: links.create, label: "New", icon: "plus", view: Make },
  { id: "chat", href: links.chat(null), label: "Chat", icon: "chat", view: Chat },
  { id: "money", href: links.money, label: "Cost", icon: "coin", view: Money },
  { id: "trouble", href: links.trouble, label: "Trouble", icon: "bolt", view: Trouble },
];

function currentPage() {
  const first = route.value.parts[0] ?? "";
  if (first === "w") return { id: "", label: route.value.parts[2] ?? "Workspace", view: WorkspaceView };
  return PAGES.find((page) => page.id === first) ?? PAGES[0];
}

const NEXT_THEME = { auto: "light", light: "dark", dark: "auto" };
const THEME_ICON = { auto: "auto", light: "sun", dark: "moon" };

function Side({ page }) {
  const trouble = session.value?.trouble?.length > 0;
  return html`<header class="side">
    <a class="brand" href=${links.list}><img src="./style/icon.svg" alt="" width="24" height="24" />Kaito</a>
    <nav aria-label="Views">
      ${PAGES.filter((one) => one.id !== "trouble" || trouble).map((one) => html`
        <a key=${one.id} href=${one.href} aria-current=${one.id === page.id ? "page" : undefined}><${Icon} name=${one.icon} />${one.label}</a>`)}
    </nav>
    <div class="foot">
      ${session.value && html`<div class="where stack">
        <div class="break">${session.value.cluster}${session.value.user ? html`<br />${session.value.user}` : null}</div>
        <div>${session.value.writes ? "Changes are allowed" : "Read only"} · ${session.value.version}</div>
        ${["dashboard", "alerts"].filter((name) => session.value.links?.[name]).map((name) => html`<a key=${name} href=${session.value.links[name]} target="_blank" rel="noreferrer">${name === "dashboard" ? "Dashboard" : "Alerts"}</a>`)}
      </div>`}
      <div class="row">
        <span class="where num" title="Cost of all nodes now">${money.value ? hourly(money.value.hourly, currency.value) : ""}</span>
        <button type="button" class="plain small" onClick=${() => setTheme(NEXT_THEME[theme.value])}
          aria-label="Colors: ${theme.value}" title="Colors: ${theme.value}"><${Icon} name=${THEME_ICON[theme.value]} /></button>
      </div>
    </div>
  </header>`;
}

function Banner() {
  const trouble = problem.value;
  const tone = trouble ? (trouble.kind === "ended" ? "bad" : "warn") : "ok";
  const text = trouble
    ? `${trouble.kind === "cluster" ? "The API server does not answer. " : ""}${trouble.message}${trouble.since ? ` Since ${age(trouble.since, now.value)}.` : ""}`
    : "Connected again.";
  return html`<div role="status" class="banner ${trouble || recovered.value ? `s-${tone}` : ""}" hidden=${!trouble && !recovered.value}>
    ${(trouble || recovered.value) && html`<${Icon} name=${trouble ? "warn" : "check"} /><span>${text}</span>`}
  </div>`;
}

function Toasts() {
  return html`<div class="toasts" role="status" aria-live="polite">
    ${toasts.value.map((one) => html`<div key=${one.id} class="toast">
      <span class="badge s-${one.tone}"><${Icon} name=${one.tone === "bad" ? "warn" : "check"} />${one.tone === "bad" ? "Error" : "Done"}</span>
      <span class="break">${one.text}</span>
      <button type="button" class="small plain" aria-label="Close" onClick=${() => dismiss(one.id)}><${Icon} name="cross" /></button>
    </div>`)}
  </div>`;
}

/** Puts the focus on the new view after a change of the address, so that a screen reader reads it. */
function useFocusOnChange(address) {
  const main = useRef(null);
  const before = useRef(address);
  useEffect(() => {
    if (before.current === address) return;
    before.current = address;
    main.current.scrollTop = 0;
    (main.current.querySelector("h1") ?? main.current).focus({ preventScroll: true });
  }, [address]);
  return main;
}

function App() {
  const page = currentPage();
  const address = route.value.parts.join("/");
  const main = useFocusOnChange(address);
  useEffect(() => {
    document.title = `${page.label} · Kaito`;
  }, [page.label]);
  const View = page.view;
  return html`<div class="shell">
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); main.current.focus(); }}>Go to the content</a>
    <${Side} page=${page} />
    <${Banner} />
    <main id="main" ref=${main} tabindex="-1">
      ${session.value ? html`<${View} key=${page.id + address} parts=${route.value.parts.slice(1)} />` : html`<${Waiting} />`}
    </main>
    <${Toasts} />
  </div>`;
}

function Waiting() {
  return html`<div class="page"><h1 tabindex="-1">Kaito</h1><p class="muted" data-loading>${problem.value ? problem.value.message : "Loading"}</p></div>`;
}

showTheme();
render(html`<${App} />`, document.getElementById("app"));
start();

// For the tests in a browser: the number of rows that the page knows.
Object.defineProperty(window, "kaitoConsole", { value: { rows: () => workspaces.value.size } });
