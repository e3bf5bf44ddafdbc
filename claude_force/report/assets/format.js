// The same rules as claude_force/formatting.py.
const NOTHING = "–";
const OFFSET_MS = Number(document.documentElement.dataset.offset) * 60000;
const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;

function duration(ms) {
  if (ms === null) return NOTHING;
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${ms.toFixed(0)} ms`;
  if (ms < 59950) return `${(ms / SECOND).toFixed(ms < 9995 ? 2 : 1)} s`;
  const seconds = Math.round(ms / SECOND), minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60);
  if (hours >= 24) return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  return hours ? `${hours} h ${minutes % 60} min` : `${minutes} min ${seconds % 60} s`;
}

function dollars(usd) {
  if (usd === null) return NOTHING;
  const size = Math.abs(usd), sign = usd < 0 ? "-" : "";
  if (size < 1e-9) return "$0.00";
  if (size < 0.000001) return `${sign}<$0.000001`;
  if (size >= 0.99995) return `${sign}$${number(size, 2)}`;
  return `${sign}$${size.toFixed(size >= 0.0000995 ? 4 : 6)}`;
}

function number(value, digits = 0) {
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function pluralize(value, thing) {
  return `${number(value)} ${thing}${value === 1 ? "" : "s"}`;
}

// `unix` in milliseconds, in the zone of the page; `grain` is the precision, in milliseconds.
function clock(unix, grain = SECOND, withDay = false) {
  const iso = new Date(unix + OFFSET_MS).toISOString();
  const time = iso.slice(11, grain < SECOND ? 23 : grain < MINUTE ? 19 : 16);
  return withDay ? `${iso.slice(0, 10)} ${time}` : time;
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const byId = (id) => document.getElementById(id);
