// Computes what can be drawn of calls: spans of time, their lanes, and how many there are over time.
const STATES = ["wire", "fail", "retry", "wait", "cache"];
const WIRE = 0, FAIL = 1, RETRY = 2, WAIT = 3, TOOL = 4;
const EDGE_MS = 0.05;

// Spans of `state` from `start` to `end`; those of a call are `first[call]` to `first[call + 1]`, without the latter.
function spansOf(calls) {
  const spans = { state: [], start: [], end: [], first: new Uint32Array(calls.n + 1) };
  const add = (state, start, end) => {
    if (end - start < EDGE_MS) return;
    spans.state.push(state);
    spans.start.push(start);
    spans.end.push(end);
  };
  for (let call = 0; call < calls.n; call++) {
    spans.first[call] = spans.state.length;
    addSpans(calls, call, add);
    spans.first[call + 1] = spans.state.length;
  }
  return spans;
}

function addSpans(calls, call, add) {
  const { first, began, ended, error } = calls.timeline;
  const busy = toolSpansOf(calls, call);
  let at = calls.begin[call], between = WAIT;
  for (let attempt = first[call]; attempt < first[call + 1]; attempt++) {
    addBetween(add, busy, between, at, began[attempt]);
    add(error[attempt] ? FAIL : WIRE, began[attempt], ended[attempt]);
    at = Math.max(at, ended[attempt]);
    between = busy.length && !error[attempt] ? WAIT : RETRY;
  }
  if (calls.flags[call] & CACHED) return;
  // A line of the ledger's older format has no attempts: the whole call is one span.
  const unrecorded = first[call] === first[call + 1] && calls.flags[call] & SUCCESS && !(calls.flags[call] & SHARED);
  addBetween(add, busy, unrecorded ? WIRE : between, at, calls.end[call]);
}

// The spans of time in which at least one tool of a call runs.
function toolSpansOf(calls, call) {
  const { first, began, ended } = calls.tools, spans = [];
  const order = Array.from({ length: first[call + 1] - first[call] }, (_, index) => first[call] + index);
  for (const tool of order.sort((a, b) => began[a] - began[b])) {
    const last = spans[spans.length - 1];
    if (last && began[tool] <= last[1]) last[1] = Math.max(last[1], ended[tool]);
    else spans.push([began[tool], ended[tool]]);
  }
  return spans;
}

// Adds the time between two attempts: tools run in part of it.
function addBetween(add, busy, state, from, to) {
  for (const [began, ended] of busy) {
    const start = Math.max(from, began), end = Math.min(to, ended);
    if (end <= start) continue;
    add(state, from, start);
    add(TOOL, start, end);
    from = end;
  }
  add(state, from, to);
}

// Each call gets the lowest lane that is free when it begins. Cached calls get none because they take no time.
function lanesOf(calls) {
  const lane = new Int32Array(calls.n).fill(-1), free = [], busy = [];
  let lanes = 0;
  for (let call = 0; call < calls.n; call++) {
    if (calls.flags[call] & CACHED) continue;
    while (busy.length && busy[0][0] <= calls.begin[call]) heapPush(free, [heapPop(busy)[1]]);
    lane[call] = free.length ? heapPop(free)[0] : lanes++;
    heapPush(busy, [calls.end[call], lane[call]]);
  }
  return lane;
}

// A heap of arrays, ordered by their first number.
function heapPush(heap, item) {
  let at = heap.push(item) - 1;
  for (let up; at > 0 && heap[(up = (at - 1) >> 1)][0] > item[0]; at = up) {
    heap[at] = heap[up];
    heap[up] = item;
  }
}

function heapPop(heap) {
  const top = heap[0], last = heap.pop();
  if (!heap.length) return top;
  heap[0] = last;
  for (let at = 0; ; ) {
    let least = at;
    for (const below of [2 * at + 1, 2 * at + 2]) if (below < heap.length && heap[below][0] < heap[least][0]) least = below;
    if (least === at) return top;
    [heap[at], heap[least]] = [heap[least], heap[at]];
    at = least;
  }
}

// The mean number of calls in each state, in `columns` equal parts of the time from `from` to `to`.
function densityOf(spans, from, to, columns) {
  const scale = columns / (to - from);
  const part = STATES.map(() => new Float64Array(columns + 1)), whole = STATES.map(() => new Float64Array(columns + 1));
  for (let span = 0; span < spans.state.length; span++) {
    const start = Math.max(0, (spans.start[span] - from) * scale), end = Math.min(columns, (spans.end[span] - from) * scale);
    if (end <= start) continue;
    const left = Math.floor(start), right = Math.floor(end), state = spans.state[span];
    if (left === right) {
      part[state][left] += end - start;
      continue;
    }
    part[state][left] += left + 1 - start;
    part[state][right] += end - right;
    whole[state][left + 1] += 1;
    whole[state][right] -= 1;
  }
  return part.map((sums, state) => {
    let running = 0;
    return sums.map((sum, column) => sum + (running += whole[state][column])).slice(0, columns);
  });
}

// How many attempts are on the wire from each moment on, and the sum of the limits of all runs.
function stepsOf(calls) {
  const { first, began, ended, limit: limitAt } = calls.timeline, events = [], last = new Map();
  for (let call = 0; call < calls.n; call++) {
    for (let attempt = first[call]; attempt < first[call + 1]; attempt++) {
      events.push([began[attempt], 1, calls.run[call], limitAt[attempt]], [ended[attempt], -1, calls.run[call], null]);
      last.set(calls.run[call], Math.max(last.get(calls.run[call]) ?? 0, ended[attempt]));
    }
  }
  for (const [run, end] of last) events.push([end, 0, run, 0]);
  events.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const limits = new Map(), steps = { at: [], on: [], limit: [] };
  let on = 0, limit = 0;
  for (const [at, change, run, newLimit] of events) {
    on += change;
    if (newLimit !== null) {
      limit += newLimit - (limits.get(run) ?? 0);
      limits.set(run, newLimit);
    }
    steps.at.push(at);
    steps.on.push(on);
    steps.limit.push(limit);
  }
  return steps;
}

// Times are rounded to a tenth of a millisecond: an overlap of a few of these is a rounding error.
const PRECISION_MS = 0.35;

// The maximum of both, and the mean on the wire, in `columns` equal parts of the time from `from` to `to`.
function peaksOf(steps, from, to, columns) {
  const on = new Float64Array(columns), mean = new Float64Array(columns), limit = new Float64Array(columns);
  const scale = columns / (to - from);
  for (let step = 0; step < steps.at.length; step++) {
    const start = steps.at[step], end = step + 1 < steps.at.length ? steps.at[step + 1] : start;
    if (end < from || start > to || end - start < PRECISION_MS) continue;
    const left = Math.max(0, Math.floor((start - from) * scale)), right = Math.min(columns - 1, Math.floor((end - from) * scale));
    for (let column = left; column <= right; column++) {
      on[column] = Math.max(on[column], steps.on[step]);
      mean[column] += steps.on[step] * (Math.min(column + 1, (end - from) * scale) - Math.max(column, (start - from) * scale));
      limit[column] = Math.max(limit[column], steps.limit[step]);
    }
  }
  return { on, mean, limit };
}
