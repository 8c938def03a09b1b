// Makes a Workspace: a form from the CRD's schema and the catalog, the plan while typing, YAML, and apply where allowed.
import { html, computed, signal, useEffect } from "../dom.js";
import { api } from "../api.js";
import { currency, session, toast, writes } from "../state.js";
import { go, links } from "../router.js";
import { bytes, context, hourly, parameters } from "../format.js";
import { CopyButton, Failure, Icon } from "../ui.js";
import { rootSchema, SchemaField, SchemaGroup, valueAt, withValue } from "../schema.js";
import { toYaml } from "../yaml.js";
import { PlanPanel } from "./plan.js";

const catalog = signal(null);
const schema = signal(null);
const failure = signal(null);

const task = signal("inference");
const name = signal("my-model");
const namespace = signal("default");
/** What the user entered, in the structure of a Workspace. */
const data = signal({ resource: { count: 1 } });
/** The YAML after a change by hand; null while the form writes it. */
const edited = signal(null);
const search = { text: signal(""), family: signal(""), license: signal(""), size: signal(""), context: signal("") };

const SIZES = { "": "Any size", "3e9": "Up to 3 B", "8e9": "Up to 8 B", "15e9": "Up to 15 B", "80e9": "Up to 80 B" };
const CONTEXTS = { "": "Any context", 8192: "At least 8 Ki", 32768: "At least 32 Ki", 131072: "At least 128 Ki" };

const manifest = computed(() => {
  const { resource, spec, inference, tuning } = data.value;
  const labels = resource?.labelSelector?.matchLabels ?? { apps: name.value };
  return {
    apiVersion: "kaito.sh/v1alpha1", kind: "Workspace", metadata: { name: name.value, namespace: namespace.value },
    spec: task.value === "inference" ? spec : undefined,
    resource: { ...resource, labelSelector: { ...resource?.labelSelector, matchLabels: labels } },
    ...(task.value === "inference" ? { inference } : { tuning }),
  };
});
const yaml = computed(() => edited.value ?? toYaml(manifest.value));

const set = (path, value) => (data.value = withValue(data.value, path, value));
const modelPath = computed(() => `${task.value}.preset.name`);
const model = computed(() => valueAt(data.value, modelPath.value));

const models = computed(() => {
  const words = search.text.value.toLowerCase().split(/\s+/).filter(Boolean);
  return (catalog.value?.models ?? []).filter((one) => {
    const text = `${one.name} ${one.family} ${one.license}`.toLowerCase();
    return words.every((word) => text.includes(word)) && (task.value !== "tuning" || one.tuning)
      && (!search.family.value || one.family === search.family.value) && (!search.license.value || one.license === search.license.value)
      && (!search.size.value || (one.parameters ?? Infinity) <= Number(search.size.value)) && (!search.context.value || (one.context ?? 0) >= Number(search.context.value));
  });
});

const choices = (field) => [...new Set((catalog.value?.models ?? []).map((one) => one[field]).filter(Boolean))].sort();

function Select({ label, target, options }) {
  return html`<select aria-label=${label} value=${target.value} onChange=${(event) => (target.value = event.target.value)}>
    ${options.map(([value, text]) => html`<option key=${value} value=${value} selected=${value === target.value}>${text}</option>`)}</select>`;
}

function Models({ refusals }) {
  const found = models.value;
  const refusal = refusals.get(modelPath.value);
  const pick = (one) => {
    if (!model.value || name.value === suggested(model.value) || name.value === "my-model") name.value = suggested(one.name);
    set(modelPath.value, one.name);
    if (!chosenType.value) suggestType(one);
  };
  return html`<fieldset class="card" aria-label="Model"><header><h2>Model</h2><span class="muted num">${found.length} of ${catalog.value.models.length}</span></header>
    <div class="body stack">
      <div class="filters models-filter">
        <label class="search"><span class="hidden-label">Search models</span><${Icon} name="search" /><input type="search" placeholder="Search models" value=${search.text.value} onInput=${(event) => (search.text.value = event.target.value)} /></label>
        <${Select} label="Family" target=${search.family} options=${[["", "Any family"], ...choices("family").map((one) => [one, one])]} />
        <${Select} label="License" target=${search.license} options=${[["", "Any license"], ...choices("license").map((one) => [one, one])]} />
        <${Select} label="Size" target=${search.size} options=${Object.entries(SIZES)} />
        <${Select} label="Context" target=${search.context} options=${Object.entries(CONTEXTS)} />
      </div>
      <div class="models" role="radiogroup" aria-label="Models" tabindex="-1">
        ${found.map((one) => html`<label key=${one.name} class="model">
          <input type="radio" name="model" value=${one.name} checked=${one.name === model.value} onChange=${() => pick(one)} />
          <span class="stack none"><span class="break"><strong>${one.name}</strong> ${one.gated && html`<span class="tag" title="The publisher must give you access; set a secret with your token">needs access</span>`}</span>
            <span class="muted small">${[one.family, one.license, parameters(one.parameters), `${context(one.context)} tokens of context`, one.sizeBytes ? bytes(one.sizeBytes) : null].filter(Boolean).join(" · ")}</span></span></label>`)}
        ${found.length === 0 && html`<p class="muted">No model of the catalog matches. You can also write the name of any model with the architecture of a known family below.</p>`}
      </div>
      ${refusal && html`<div class="wrong">${refusal}</div>`}
      <label class="field"><span class="label">Or a model by name</span><input type="text" placeholder="organization/model" value=${model.value ?? ""} autocomplete="off" spellcheck=${false} onInput=${(event) => set(modelPath.value, event.target.value)} /></label>
    </div></fieldset>`;
}

/** Whether the user chose the instance type; until then it follows the model. */
const chosenType = signal(false);

/** Sets the cheapest instance type whose GPUs probably hold the model; the plan decides. */
function suggestType(one) {
  const needed = ((one.sizeBytes ?? 0) * 1.25) / 2 ** 30 + 2;
  const fits = (type) => type.gpus > 0 && /nvidia/i.test(type.gpuModel ?? "") && type.gpus * (type.gpuMemoryGiB ?? 0) >= needed;
  const cheapest = catalog.value.instanceTypes.filter(fits).sort((a, b) => (a.hourly ?? Infinity) - (b.hourly ?? Infinity))[0];
  if (cheapest) set("resource.instanceType", cheapest.name);
}

function suggested(text) {
  return text.split("/").at(-1).toLowerCase().replace(/[^a-z0-9-]+/g, "-").replace(/^[^a-z]+|-+$/g, "").slice(0, 40) || "my-model";
}

function instanceLabel(one) {
  const gpus = one.gpus ? `${one.gpus} × ${one.gpuModel ?? "GPU"}${one.gpuMemoryGiB ? `, ${one.gpuMemoryGiB} GiB` : ""}` : "no GPU";
  return `${one.name} · ${gpus} · ${one.hourly == null ? "price unknown" : hourly(one.hourly, currency.value || plan.value?.currency)}`;
}

function Nodes({ root, refusals }) {
  const instance = valueAt(data.value, "resource.instanceType");
  const types = catalog.value.instanceTypes;
  const field = (path, title, help) => html`<${SchemaField} root=${root} path=${path} title=${title} help=${help} value=${valueAt(data.value, path)} refusal=${refusals.get(path)} onChange=${(value) => set(path, value)} />`;
  return html`<fieldset class="card" aria-label="Nodes"><header><h2>Nodes</h2></header><div class="body fields">
    <div class="field full"><label for="instance-type">Instance type</label>
      <select id="instance-type" value=${instance ?? ""} aria-invalid=${refusals.has("resource.instanceType") ? "true" : undefined} onChange=${(event) => { chosenType.value = true; set("resource.instanceType", event.target.value); }}>
        <option value="">${model.value ? "None: use existing nodes" : "Follows the model"}</option>
        ${types.map((one) => html`<option key=${one.name} value=${one.name} selected=${one.name === instance}>${instanceLabel(one)}</option>`)}</select>
      ${refusals.has("resource.instanceType") && html`<div class="wrong">${refusals.get("resource.instanceType")}</div>`}</div>
    ${task.value === "inference" && field("resource.count", "Copies", "Each copy answers a part of the requests and has its own nodes.")}
    ${field("resource.capacityType", "Capacity", "Spot nodes cost less, and the cloud can take them back at any time.")}
    ${field("resource.maxHourlyCost", "Highest cost per hour", "Nodes beyond this price are not bought. Example: 12.50")}
  </div></fieldset>`;
}

function Name({ refusals }) {
  const spaces = session.value.namespaces ?? [];
  return html`<fieldset class="card" aria-label="Name and namespace"><header><h2>Name</h2></header><div class="body fields">
    <div class="field"><label for="ws-name">Name</label><input id="ws-name" type="text" required value=${name.value} autocomplete="off" spellcheck=${false} aria-invalid=${refusals.has("metadata.name") ? "true" : undefined} onInput=${(event) => (name.value = event.target.value)} />
      ${refusals.has("metadata.name") && html`<div class="wrong">${refusals.get("metadata.name")}</div>`}</div>
    <div class="field"><label for="ws-namespace">Namespace</label><input id="ws-namespace" type="text" list="namespaces" value=${namespace.value} autocomplete="off" onInput=${(event) => (namespace.value = event.target.value)} />
      <datalist id="namespaces">${spaces.map((one) => html`<option key=${one} value=${one} />`)}</datalist></div>
  </div></fieldset>`;
}

function TuningFields({ root, refusals }) {
  const field = (path, title, help, placeholder) => html`<${SchemaField} root=${root} path=${path} title=${title} help=${help} placeholder=${placeholder} value=${valueAt(data.value, path)} refusal=${refusals.get(path)} onChange=${(value) => set(path, value)} />`;
  return html`<fieldset class="card" aria-label="Data and result"><header><h2>Data and result</h2></header><div class="body fields">
    <div class="field"><label for="method">Method</label><select id="method" value=${valueAt(data.value, "tuning.method") ?? ""} onChange=${(event) => set("tuning.method", event.target.value)}>
      <option value="">Choose</option><option value="lora">LoRA: fast, more memory</option><option value="qlora">QLoRA: less memory</option></select></div>
    ${field("tuning.input.urls", "Addresses of the data", "Files in parquet or JSON Lines. One address per line.", "https://example.com/train.parquet")}
    ${field("tuning.input.image", "Or an image with the data", "", "registry.example.com/data:1")}
    ${field("tuning.output.image", "Image for the adapter", "Where the trained adapter is pushed.", "registry.example.com/adapter:1")}
    ${field("tuning.output.imagePushSecret", "Secret for the push", "Name of a Secret with the account of the registry.")}
  </div></fieldset>`;
}

const SKIP = new Set(["resource.count", "resource.instanceType", "resource.capacityType", "resource.maxHourlyCost", "inference.template", "inference.preset.name", "tuning.preset.name", "tuning.method", "tuning.input.urls", "tuning.input.image", "tuning.output.image", "tuning.output.imagePushSecret"]);

function More({ root, refusals }) {
  const groups = task.value === "inference" ? ["resource", "spec", "inference"] : ["resource", "tuning"];
  return html`<details class="card more"><summary><h2>More fields</h2></summary><div class="body stack">
    ${groups.map((path) => html`<div key=${path} class="stack tight"><h3 class="mono">${path}</h3><${SchemaGroup} root=${root} path=${path} data=${data.value} onChange=${set} refusals=${refusals} skip=${SKIP} /></div>`)}
  </div></details>`;
}

function YamlEditor() {
  return html`<section class="card" aria-label="YAML"><header><h2>YAML</h2><div class="row end">
      ${edited.value !== null && html`<button type="button" class="small" onClick=${() => (edited.value = null)}>Back to the form</button>`}
      <${CopyButton} text=${() => yaml.value} label="Copy YAML" /></div></header>
    <div class="body stack tight">
      ${edited.value !== null && html`<p class="small warn-text">Edited by hand: the form does not change it until you go back to the form.</p>`}
      <label><span class="hidden-label">YAML of the Workspace</span><textarea class="mono yaml-editor" rows="16" spellcheck=${false} value=${yaml.value} onInput=${(event) => (edited.value = event.target.value)}></textarea></label>
    </div></section>`;
}

// -- the plan ---------------------------------------------------------------------------------------------------------

const plan = signal(null);
const planning = signal(false);
const planError = signal(null);
const applying = signal(false);
const TYPING_PAUSE_MS = 250;

/** Requests the plan after each pause in typing; a newer request replaces an older one. */
function usePlan(text, ready) {
  useEffect(() => {
    if (!ready) return undefined;
    const abort = new AbortController();
    const timer = setTimeout(async () => {
      planning.value = true;
      try {
        plan.value = await api.plan(text, abort.signal);
        planError.value = null;
      } catch (error) {
        if (error.name === "AbortError") return;
        planError.value = error;
      }
      planning.value = false;
    }, TYPING_PAUSE_MS);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [text, ready]);
}

async function apply() {
  applying.value = true;
  try {
    const made = await api.apply(yaml.value);
    toast(`Workspace ${made.namespace}/${made.name} is created.`);
    edited.value = null;
    go(links.workspace(made));
  } catch (error) {
    toast(error.field ? `${error.field}: ${error.message}` : error.message, "bad");
  } finally {
    applying.value = false;
  }
}

async function load() {
  if (catalog.value && schema.value) return;
  try {
    const [models, fields] = await Promise.all([api.catalog(), api.schema()]);
    catalog.value = models;
    schema.value = rootSchema(fields);
    failure.value = null;
  } catch (error) {
    failure.value = error;
  }
}

function TaskChoice() {
  const option = (value, label, text) => html`<label class="task ${task.value === value ? "chosen" : ""}"><input type="radio" name="task" value=${value} checked=${task.value === value} onChange=${() => (task.value = value)} />
    <span class="stack none"><strong>${label}</strong><span class="muted small">${text}</span></span></label>`;
  return html`<div class="tasks" role="radiogroup" aria-label="Task">
    ${option("inference", "Serve a model", "It answers requests until you delete it.")}
    ${option("tuning", "Tune a model", "It learns from your data, and the result is an adapter.")}
  </div>`;
}

export function Make() {
  useEffect(() => {
    load();
  }, []);
  const ready = catalog.value !== null && schema.value !== null;
  usePlan(yaml.value, ready && (edited.value !== null || Boolean(model.value)));
  const head = html`<div class="page-head"><div class="title"><h1 tabindex="-1">New Workspace</h1><p class="muted">The plan shows what it needs and costs. Nothing is created before you apply it.</p></div></div>`;
  if (failure.value) return html`<div class="page">${head}<${Failure} error=${failure.value} /></div>`;
  if (!ready) return html`<div class="page">${head}<p class="muted" data-loading>Loading the catalog</p></div>`;
  const refusals = new Map((plan.value?.refusals ?? []).map((one) => [one.field, one.message]));
  const root = schema.value;
  const allowed = writes.value && plan.value?.ok && !planning.value && !planError.value;
  return html`<div class="page">${head}
    <div class="make">
      <form class="stack wide-gap" onSubmit=${(event) => event.preventDefault()}>
        <${TaskChoice} />
        <${Models} refusals=${refusals} />
        <${Nodes} root=${root} refusals=${refusals} />
        ${task.value === "tuning" && html`<${TuningFields} root=${root} refusals=${refusals} />`}
        <${Name} refusals=${refusals} />
        <${More} root=${root} refusals=${refusals} />
        <${YamlEditor} />
      </form>
      <div class="make-plan stack wide-gap">
        <${PlanPanel} plan=${plan.value} busy=${planning.value} error=${planError.value} chosen=${Boolean(model.value) || edited.value !== null}>
          ${writes.value
            ? html`<button type="button" class="primary" disabled=${!allowed || applying.value} onClick=${apply}>Create the Workspace</button>`
            : html`<p class="muted small">This console is read only. Copy the YAML and use <code>kubectl apply</code>.</p>`}
          <${CopyButton} text=${() => yaml.value} label="Copy YAML" small=${false} />
        <//>
      </div>
    </div>
  </div>`;
}
