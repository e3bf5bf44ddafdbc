"use strict";

// Unpacks what claude_force/report/data.py packed. Times become milliseconds since the start of the first call.
const TICKS_PER_MS = 10, UNITS_PER_USD = 1e8, SUCCESS = 1, CACHED = 2, SHARED = 4;

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return callsOf(JSON.parse(await new Response(plain).text()));
}

function callsOf({ from, names, columns, timeline, tools }) {
  const calls = { ...columns, names, from, n: columns.begin.length };
  let at = 0;
  calls.begin = Float64Array.from(columns.begin, (delta) => (at += delta) / TICKS_PER_MS);
  for (const time of ["wall", "wait", "service"]) {
    calls[time] = columns[time].map((ticks) => (ticks === null ? null : ticks / TICKS_PER_MS));
  }
  calls.end = calls.begin.map((begin, call) => begin + calls.wall[call]);
  for (const sum of ["cost", "saved", "promptSaved"]) {
    calls[sum] = columns[sum].map((units) => (units === null ? null : units / UNITS_PER_USD));
  }
  calls.timeline = timelineOf(calls, columns.timeline, timeline);
  calls.tools = toolsOf(calls, columns.tools, tools);
  return calls;
}

// The tool calls of an agent are `first[call]` to `first[call + 1]`, without the latter.
function toolsOf(calls, counts, { begin, took, turn, name, failed }) {
  const first = new Uint32Array(calls.n + 1);
  const began = new Float64Array(begin.length), ended = new Float64Array(begin.length);
  for (let call = 0, tool = 0; call < calls.n; call++) {
    first[call] = tool;
    for (; tool < first[call] + counts[call]; tool++) {
      began[tool] = calls.begin[call] + begin[tool] / TICKS_PER_MS;
      ended[tool] = began[tool] + took[tool] / TICKS_PER_MS;
    }
    first[call + 1] = tool;
  }
  return { first, began, ended, turn, name, failed };
}

// The attempts of a call are `first[call]` to `first[call + 1]`, without the latter.
function timelineOf(calls, counts, { begin, took, limit, error }) {
  const first = new Uint32Array(calls.n + 1);
  const began = new Float64Array(begin.length), ended = new Float64Array(begin.length);
  for (let call = 0, attempt = 0; call < calls.n; call++) {
    first[call] = attempt;
    for (let at = calls.begin[call]; attempt < first[call] + counts[call]; attempt++) {
      began[attempt] = at + begin[attempt] / TICKS_PER_MS;
      at = ended[attempt] = began[attempt] + took[attempt] / TICKS_PER_MS;
    }
    first[call + 1] = attempt;
  }
  return { first, began, ended, limit, error };
}

const STATUSES = [
  ["answered", "Answered", (calls, call) => calls.flags[call] & SUCCESS],
  ["failed", "Failed", (calls, call) => !(calls.flags[call] & SUCCESS)],
  ["cached", "Cached", (calls, call) => calls.flags[call] & CACHED],
  ["shared", "Shared", (calls, call) => calls.flags[call] & SHARED],
  ["retried", "Retried", (calls, call) => calls.attempts[call] > 1],
  ["cut", "Cut off", (calls, call) => CUT.has(calls.names.stop[calls.stop[call]])],
];
const CUT = new Set(["max_tokens", "model_context_window_exceeded", "pause_turn", "refusal"]);
// The most important status of a call comes first.
const BY_IMPORTANCE = ["failed", "cached", "shared", "cut", "retried", "answered"];

function statusOf(calls, call) {
  return BY_IMPORTANCE.find((status) => STATUSES.find(([name]) => name === status)[2](calls, call));
}
