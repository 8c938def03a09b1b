// Fields from the schema of the Workspace's CRD: each with its description, limits and choices.
import { html, useState } from "./dom.js";
import { Field } from "./ui.js";

/** Unwraps the answer of /api/schema to the schema of the kind. */
export function rootSchema(answer) {
  return answer?.openAPIV3Schema ?? answer?.schema?.openAPIV3Schema ?? answer ?? {};
}

/** The schema at a path such as "resource.count", or an empty one. */
export function schemaAt(root, path) {
  return path.split(".").reduce((schema, name) => schema?.properties?.[name], root) ?? {};
}

export function valueAt(value, path) {
  return path.split(".").reduce((one, name) => one?.[name], value);
}

/** Returns a copy of the data with one value changed; undefined removes it. */
export function withValue(data, path, value) {
  const [name, ...rest] = path.split(".");
  const copy = { ...data };
  if (rest.length) copy[name] = withValue(copy[name] ?? {}, rest.join("."), value);
  else if (value === undefined || value === "") delete copy[name];
  else copy[name] = value;
  return copy;
}

const label = (path) => path.split(".").at(-1).replace(/([A-Z])/g, (letter) => ` ${letter.toLowerCase()}`).replace(/^./, (letter) => letter.toUpperCase());

/** Removes the notation of code from a description. */
const plain = (text) => text?.replaceAll("`", "");

function isText(schema) {
  return schema.type === "string" || schema["x-kubernetes-int-or-string"];
}

/** An input for one value of the schema. `refusal` is the message of the plan about this field. */
export function SchemaField({ root, path, value, onChange, refusal, title, help, placeholder }) {
  const schema = schemaAt(root, path);
  const text = help ?? plain(schema.description);
  const caption = title ?? label(path);
  const input = (props) => {
    if (schema.enum) {
      return html`<select ...${props} value=${value ?? ""} onChange=${(event) => onChange(event.target.value || undefined)}>
        <option value="">${schema.default ? `Default: ${schema.default}` : "Default"}</option>
        ${schema.enum.map((one) => html`<option key=${one} value=${one} selected=${one === value}>${one}</option>`)}</select>`;
    }
    if (schema.type === "integer" || schema.type === "number") {
      return html`<input ...${props} type="number" min=${schema.minimum} max=${schema.maximum} step=${schema.type === "integer" ? 1 : "any"} value=${value ?? ""}
        placeholder=${placeholder ?? (schema.default != null ? `Default: ${schema.default}` : "")}
        onInput=${(event) => onChange(event.target.value === "" ? undefined : Number(event.target.value))} />`;
    }
    if (schema.type === "boolean") {
      return html`<input ...${props} type="checkbox" checked=${value === true} onChange=${(event) => onChange(event.target.checked || undefined)} />`;
    }
    if (schema.type === "array") {
      return html`<textarea ...${props} rows="2" value=${(value ?? []).join("\n")} placeholder=${placeholder ?? "One per line"}
        onInput=${(event) => onChange(event.target.value ? event.target.value.split("\n") : undefined)}></textarea>`;
    }
    return html`<input ...${props} type="text" maxlength=${schema.maxLength} value=${value ?? ""} placeholder=${placeholder ?? ""} autocomplete="off" spellcheck=${false}
      onInput=${(event) => onChange(event.target.value || undefined)} />`;
  };
  return html`<${Field} label=${caption} help=${text} error=${refusal}>${input}<//>`;
}

function isSimple(schema) {
  return isText(schema) || ["integer", "number", "boolean"].includes(schema.type) || (schema.type === "array" && isText(schema.items ?? {}));
}

/** Every simple field under a path, objects as groups that open on demand. Fields in `skip` are left out. */
export function SchemaGroup({ root, path, data, onChange, refusals, skip = new Set(), depth = 0 }) {
  const schema = schemaAt(root, path);
  const names = Object.keys(schema.properties ?? {}).map((name) => `${path}.${name}`).filter((one) => !skip.has(one));
  const simple = names.filter((one) => isSimple(schemaAt(root, one)));
  const groups = depth < 3 ? names.filter((one) => schemaAt(root, one).properties) : [];
  return html`<div class="fields">
    ${simple.map((one) => html`<${SchemaField} key=${one} root=${root} path=${one} value=${valueAt(data, one)} refusal=${refusals.get(one)} onChange=${(value) => onChange(one, value)} />`)}
    ${groups.map((one) => html`<${Group} key=${one} root=${root} path=${one} data=${data} onChange=${onChange} refusals=${refusals} skip=${skip} depth=${depth + 1} />`)}
  </div>`;
}

function Group(props) {
  const [open, setOpen] = useState(false);
  const schema = schemaAt(props.root, props.path);
  return html`<details class="group" onToggle=${(event) => setOpen(event.currentTarget.open)}>
    <summary>${label(props.path)}</summary>
    ${open && html`<p class="help">${plain(schema.description)}</p><${SchemaGroup} ...${props} />`}
  </details>`;
}
