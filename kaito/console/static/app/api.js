// Requests to the console's server. Every failure becomes an Error whose message names the remedy.

export class ApiError extends Error {
  constructor(status, message, field = null) {
    super(message);
    this.status = status;
    this.field = field;
  }
}

const UNREACHABLE = "The console does not answer. Check that `kaito console` or `kaito up` still runs.";

async function send(method, path, body, signal) {
  const headers = {};
  if (method !== "GET") headers["X-Kaito-Console"] = "1";
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method, headers, signal, credentials: "same-origin", body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, UNREACHABLE);
  }
  if (!response.ok) {
    const content = await response.json().catch(() => ({}));
    throw new ApiError(response.status, content.error ?? `The console answered with status ${response.status}.`, content.field);
  }
  return response;
}

async function json(method, path, body, signal) {
  const response = await send(method, path, body, signal);
  return response.status === 204 ? null : response.json().catch(() => null);
}

const path = (namespace, name) => `/api/workspaces/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;

export const api = {
  session: () => json("GET", "/api/session"),
  workspace: (namespace, name, signal) => json("GET", path(namespace, name), undefined, signal),
  models: (namespace, name) => json("GET", `${path(namespace, name)}/models`),
  money: () => json("GET", "/api/money"),
  catalog: () => json("GET", "/api/catalog"),
  schema: () => json("GET", "/api/schema"),
  plan: (yaml, signal) => json("POST", "/api/plan", { yaml }, signal),
  apply: (yaml) => json("POST", "/api/workspaces", { yaml }),
  remove: (namespace, name) => json("DELETE", path(namespace, name)),
  scale: (namespace, name, copies) => json("POST", `${path(namespace, name)}/scale`, { copies }),
  trouble: (id, target) => json("POST", `/api/trouble/${encodeURIComponent(id)}`, { target }),
  /** Sends a chat and yields {event, data} until the answer is complete. */
  async *chat(namespace, name, body, signal) {
    const response = await send("POST", `${path(namespace, name)}/chat`, body, signal);
    yield* serverEvents(response.body);
  },
};

/** Parses a text/event-stream. */
export async function* serverEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = "message";
  let data = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (data.length) yield { event, data: JSON.parse(data.join("\n")) };
        event = "message";
        data = [];
      } else if (line.startsWith("event:")) event = line.slice(6).trim();
      else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
    }
  }
}
