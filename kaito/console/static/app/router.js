// Addresses of views: the part after # of the URL. `#/w/team/phi?tab=yaml` is the tab yaml of Workspace phi.
import { signal } from "./dom.js";

function parse() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return { parts: path.split("/").filter(Boolean).map(decodeURIComponent), query: new URLSearchParams(query) };
}

export const route = signal(parse());
addEventListener("hashchange", () => (route.value = parse()));

export const links = {
  list: "#/",
  workspace: (row, tab) => `#/w/${encodeURIComponent(row.namespace)}/${encodeURIComponent(row.name)}${tab ? `?tab=${tab}` : ""}`,
  chat: (row) => (row ? `#/chat/${encodeURIComponent(row.namespace)}/${encodeURIComponent(row.name)}` : "#/chat"),
  create: "#/new",
  money: "#/money",
  trouble: "#/trouble",
};

export function go(hash) {
  location.hash = hash;
}

/** Changes one query parameter without a new entry in the history. */
export function setQuery(name, value) {
  const { parts, query } = route.value;
  if (value) query.set(name, value);
  else query.delete(name);
  const text = query.toString();
  history.replaceState(null, "", `#/${parts.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`);
  route.value = parse();
}
