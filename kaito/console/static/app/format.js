// Numbers, money, sizes and times as text. Unknown values are shown as "unknown" or a dash, never as 0.

export const DASH = "–";

/** Seconds as "12 s", "4 min", "3 h 5 min", "2 d 4 h". */
export function duration(seconds) {
  if (seconds == null || Number.isNaN(seconds)) return DASH;
  const total = Math.max(0, Math.round(seconds));
  if (total < 100) return `${total} s`;
  const minutes = Math.round(total / 60);
  if (minutes < 100) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 && hours < 10 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  const days = Math.floor(hours / 24);
  return hours % 24 && days < 7 ? `${days} d ${hours % 24} h` : `${days} d`;
}

/** Seconds with one decimal, for the parts of a waterfall. */
export function precise(seconds) {
  return seconds < 10 ? `${Math.max(0, seconds).toFixed(1)} s` : duration(seconds);
}

export const seconds = (iso) => Date.parse(iso) / 1000;

/** Time since an RFC 3339 time. `now` is in seconds. */
export const age = (iso, now) => (iso ? duration(now - seconds(iso)) : DASH);

/** "in 4 min" or "now" for a time in the future. */
export function until(iso, now) {
  const left = seconds(iso) - now;
  return left > 1 ? `in ${duration(left)}` : "now";
}

/** Local time of day; with the date unless it is today. */
export function clock(iso) {
  const time = new Date(iso);
  const text = time.toLocaleTimeString("en-GB");
  return time.toDateString() === new Date().toDateString() ? text : `${time.toLocaleDateString("en-CA")} ${text}`;
}

export function money(amount, currency) {
  if (amount == null) return "unknown";
  const digits = Math.abs(amount) < 0.1 && amount !== 0 ? 4 : 2;
  const text = amount.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: digits });
  return currency ? `${text} ${currency}` : text;
}

export const hourly = (amount, currency) => (amount == null ? "unknown" : `${money(amount, currency)}/h`);

/** Begins a text with a capital letter, unless its first word is a name or an address. */
export const sentence = (text) => (/^[a-z]+[\s,;]/.test(text ?? "") ? text[0].toUpperCase() + text.slice(1) : text);

export function bytes(size) {
  if (size == null) return "unknown";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  let value = size;
  while (value >= 1024 && power < units.length - 1) {
    value /= 1024;
    power += 1;
  }
  return `${value < 10 && power > 0 ? value.toFixed(1) : Math.round(value)} ${units[power]}`;
}

/** 3800000000 as "3.8 B", the usual notation for parameters of a model. */
export function parameters(count) {
  if (count == null) return "unknown size";
  if (count >= 1e9) return `${Number((count / 1e9).toPrecision(3))} B`;
  return `${Math.round(count / 1e6)} M`;
}

/** 131072 as "128 Ki", 4096 as "4 Ki" tokens. */
export function context(tokens) {
  if (tokens == null) return "unknown";
  return tokens >= 1024 ? `${Math.round(tokens / 1024)} Ki` : `${tokens}`;
}

export const plural = (count, word, words = `${word}s`) => `${count.toLocaleString("en-US")} ${count === 1 ? word : words}`;
