// The state that all views share: session, Workspaces, money, connection. The server's event stream changes it.
import { signal, computed, batch } from "./dom.js";
import { api } from "./api.js";

export const session = signal(null);
export const workspaces = signal(new Map());
export const money = signal(null);
export const loaded = signal(false);
export const now = signal(Date.now() / 1000);
/** null | {kind: "lost" | "cluster" | "ended", message, since} */
export const problem = signal(null);
/** A short notice that the connection works again. */
export const recovered = signal(false);
export const toasts = signal([]);

export const key = (row) => `${row.namespace}/${row.name}`;
export const currency = computed(() => money.value?.currency ?? "");
export const writes = computed(() => session.value?.writes === true);

let toastNumber = 0;
export function toast(text, tone = "ok") {
  toastNumber += 1;
  const id = toastNumber;
  toasts.value = [...toasts.value.slice(-2), { id, text, tone }];
  setTimeout(() => dismiss(id), tone === "bad" ? 12000 : 6000);
}
export function dismiss(id) {
  toasts.value = toasts.value.filter((one) => one.id !== id);
}

export function applySnapshot(data) {
  pending.clear();
  batch(() => {
    workspaces.value = new Map(data.workspaces.map((row) => [key(row), row]));
    if (data.money) money.value = data.money;
    loaded.value = true;
  });
}

/** Changes since the last frame by name; null for a deleted Workspace. A page that is not visible renders nothing. */
const pending = new Map();
let pendingMoney = null;
let scheduled = false;

export function applyChange(data) {
  for (const row of data.upserts ?? []) pending.set(key(row), row);
  for (const name of data.deletes ?? []) pending.set(name, null);
  pendingMoney = data.money ?? pendingMoney;
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(applyPending);
}

function applyPending() {
  scheduled = false;
  batch(() => {
    if (pending.size) {
      const next = new Map(workspaces.value);
      for (const [name, row] of pending) {
        if (row) next.set(name, row);
        else next.delete(name);
      }
      workspaces.value = next;
    }
    if (pendingMoney) money.value = pendingMoney;
  });
  pending.clear();
  pendingMoney = null;
}

const RETRY_MS = 2000;
let source = null;

function setProblem(value) {
  const before = problem.value;
  if (before && value && before.kind === value.kind && before.message === value.message) return;
  problem.value = value;
  if (before && !value) {
    recovered.value = true;
    setTimeout(() => (recovered.value = false), 5000);
  }
}

/** Opens the event stream, and again after every interruption. */
export function connect() {
  source?.close();
  source = new EventSource("/api/events");
  const on = (name, handle) => source.addEventListener(name, (event) => handle(JSON.parse(event.data)));
  on("snapshot", (data) => {
    applySnapshot(data);
    setProblem(null);
  });
  on("change", applyChange);
  on("problem", (data) => setProblem({ kind: "cluster", message: data.message, since: data.since }));
  on("recovered", () => setProblem(null));
  source.onerror = () => {
    source.close();
    reconnect();
  };
}

async function reconnect() {
  try {
    session.value = await api.session();
  } catch (error) {
    if (error.status === 401) {
      setProblem({ kind: "ended", message: "This session has ended. Open the link that the console printed when it started." });
      return;
    }
    const message = error.status === 0 ? "The connection to the console is lost. What you see may be old." : error.message;
    setProblem({ kind: "lost", message, since: problem.value?.since ?? new Date().toISOString() });
    setTimeout(reconnect, RETRY_MS);
    return;
  }
  connect();
}

export async function start() {
  setInterval(() => {
    if (!document.hidden) now.value = Date.now() / 1000;
  }, 1000);
  await reconnect();
}

// -- theme ------------------------------------------------------------------------------------------------------------

const THEME_KEY = "kaito-console-theme";
export const theme = signal(localStorage.getItem(THEME_KEY) ?? "auto");

export function setTheme(value) {
  theme.value = value;
  if (value === "auto") localStorage.removeItem(THEME_KEY);
  else localStorage.setItem(THEME_KEY, value);
  showTheme();
}
export function showTheme() {
  if (theme.value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
}
