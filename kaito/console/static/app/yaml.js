// Writes plain data as YAML. Only what a Workspace needs: mappings, lists, texts, numbers, booleans.

const PLAIN = /^[A-Za-z_/][\w./@+-]*(?: [\w./@+-]+)*$/;
const RESERVED = /^(?:true|false|yes|no|on|off|null|y|n|~)$/i;

function scalar(value) {
  if (typeof value !== "string") return String(value);
  return PLAIN.test(value) && !RESERVED.test(value) ? value : JSON.stringify(value);
}

function isEmpty(value) {
  return value === undefined || value === null || value === "" || (typeof value === "object" && Object.keys(prune(value)).length === 0);
}

/** Returns a copy without empty texts, lists and mappings. */
export function prune(value) {
  if (Array.isArray(value)) return value.filter((one) => !isEmpty(one)).map(prune);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).filter(([, one]) => !isEmpty(one)).map(([name, one]) => [name, prune(one)]));
  }
  return value;
}

function lines(value, indent) {
  const pad = " ".repeat(indent);
  if (Array.isArray(value)) {
    return value.flatMap((one) => {
      if (one && typeof one === "object") {
        const [first, ...rest] = lines(one, indent + 2);
        return [`${pad}- ${first.trimStart()}`, ...rest];
      }
      return [`${pad}- ${scalar(one)}`];
    });
  }
  return Object.entries(value).flatMap(([name, one]) => {
    const head = `${pad}${PLAIN.test(name) ? name : JSON.stringify(name)}:`;
    if (one && typeof one === "object") return [head, ...lines(one, indent + 2)];
    return [`${head} ${scalar(one)}`];
  });
}

export const toYaml = (value) => `${lines(prune(value), 0).join("\n")}\n`;
