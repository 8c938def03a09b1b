// The chain from the Workspace to its answer: a picture of stages, and one line for each part.
import { html } from "../dom.js";
import { now } from "../state.js";
import { age, clock, sentence } from "../format.js";
import { Age, Badge, Icon, PART_STATES } from "../ui.js";

const STAGES = [
  { id: "Workspace", kinds: ["Workspace", "InferenceSet"] },
  { id: "Claim", kinds: ["Machine", "NodeClaim", "NodePool", "Claim"] },
  { id: "Pool", kinds: ["AgentPool", "Instance", "Pool"] },
  { id: "Node", kinds: ["Node"] },
  { id: "GPU", kinds: ["GPU"] },
  { id: "Pod", kinds: ["StatefulSet", "Deployment", "Job", "LeaderWorkerSet", "Pod"] },
  { id: "Server", kinds: ["Service", "Server"] },
  { id: "Answer", kinds: ["Answer", "Endpoint", "Adapter", "Output"] },
];
const WORST_FIRST = ["failed", "unknown", "absent", "waiting", "ok"];

function stageOf(kind) {
  return STAGES.find((stage) => stage.kinds.includes(kind)) ?? null;
}

/** Groups the parts of a Detail by stage. Without a part of its own, the answer has the state of the Workspace. */
export function stages(detail) {
  const found = STAGES.map((stage) => {
    const parts = detail.chain.filter((part) => stageOf(part.kind)?.id === stage.id);
    const state = WORST_FIRST.find((one) => parts.some((part) => part.state === one)) ?? null;
    return { id: stage.id, parts, state };
  });
  const answer = found.at(-1);
  if (!answer.parts.length) {
    answer.state = detail.serving || detail.state === "succeeded" ? "ok" : "absent";
    if (detail.task === "tuning") answer.id = "Result";
  }
  return found.filter((stage) => stage.state !== null);
}

/** How many parts of a stage are ready, null for a single one. Of pods, the copies: the parts contain the workload as well, and one line for many pods. */
function countOf(stage, detail) {
  if (stage.id === "Pod" && detail.copies) {
    const { ready, wanted } = detail.copies;
    return wanted > 1 ? `${ready} of ${wanted}` : null;
  }
  const ready = stage.parts.filter((part) => part.state === "ok").length;
  return stage.parts.length > 1 ? `${ready} of ${stage.parts.length}` : null;
}

function newest(parts) {
  return parts.map((part) => part.since ?? part.created).filter(Boolean).sort().at(-1) ?? null;
}

/** How the part with the cause is marked: a failure, or what the Workspace waits for. */
function causeMark(detail) {
  return detail.state === "progressing" ? { label: "waits for this", tone: "busy" } : { label: "cause", tone: "bad" };
}

/** The stage of the cause. If the Workspace itself waits, that is the first stage behind it that is not ready. */
function markedStage(detail, found) {
  if (!detail.cause) return null;
  const id = stageOf(detail.cause.kind)?.id;
  if (detail.state !== "progressing" || id !== "Workspace") return id;
  return found.find((stage) => stage.id !== "Workspace" && stage.state !== "ok")?.id ?? id;
}

/** The picture. The stage with the cause is marked. */
export function ChainPicture({ detail }) {
  const found = stages(detail);
  const cause = markedStage(detail, found);
  const mark = causeMark(detail);
  return html`<ol class="chain" aria-label="From the Workspace to the answer">
    ${found.map((stage) => {
      const look = PART_STATES[stage.state];
      const count = countOf(stage, detail) ?? look.label;
      return html`<li key=${stage.id} class="stage stage-${stage.state} ${cause === stage.id ? `stage-cause cause-${mark.tone}` : ""}" data-stage=${stage.id} data-state=${stage.state}>
        <span class="stage-dot s-${look.tone} ${stage.state === "waiting" ? "pulse" : ""}"><${Icon} name=${stage.id === "Result" ? "Answer" : stage.id} /></span>
        <span class="stage-name">${stage.id}</span>
        <span class="stage-state tone-${look.tone}">${count}</span>
        <span class="stage-age muted num">${stage.parts.length ? age(newest(stage.parts), now.value) : ""}</span>
        ${cause === stage.id && html`<span class="stage-flag s-${mark.tone}">${mark.label}</span>`}
      </li>`;
    })}
  </ol>`;
}

function EventLine({ event }) {
  if (!event) return null;
  return html`<div class="part-event ${event.warning ? "warn-text" : "muted"}">
    <${Icon} name=${event.warning ? "warn" : "chevron"} />
    <span class="break"><strong>${event.reason}</strong> ${event.note} <span class="num muted" title=${clock(event.at)}>· ${age(event.at, now.value)} ago${event.count > 1 ? `, ${event.count} times` : ""}</span></span>
  </div>`;
}

export function ChainParts({ detail }) {
  const mark = causeMark(detail);
  return html`<ul class="parts">
    ${detail.chain.map((part) => {
      const isCause = detail.cause?.kind === part.kind && detail.cause?.name === part.name
        && !(detail.state === "progressing" && part.kind === "Workspace");
      return html`<li key=${`${part.kind}/${part.name}`} class="part">
        <div class="part-state"><${Badge} state=${part.state} table=${PART_STATES} /></div>
        <div class="part-what"><span class="muted">${part.kind}</span> <strong class="break">${part.name}</strong>${isCause && html` <span class="badge s-${mark.tone}">${mark.label}</span>`}</div>
        <div class="part-summary"><span class="break">${sentence(part.summary)}</span><${EventLine} event=${part.event} /></div>
        <div class="part-age num muted"><span class="hidden-label">in this state for </span><${Age} at=${part.since ?? part.created} /></div>
      </li>`;
    })}
  </ul>`;
}
