// From calls to what can be drawn of them: spans of time, their lanes, how many there are at each moment.
const STATES = ["wire", "fail", "retry", "wait"];
const WIRE = 0, FAIL = 1, RETRY = 2, WAIT = 3;
const EDGE_MS = 0.05;

// Spans of `state`, from `start` to `end`; those of a call are `first[call]` to `first[call + 1]`.
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
  const { first, began, ended, error } = calls.trip;
  let at = calls.begin[call], between = WAIT;
  for (let trip = first[call]; trip < first[call + 1]; trip++) {
    add(between, at, began[trip]);
    add(error[trip] ? FAIL : WIRE, began[trip], ended[trip]);
    at = Math.max(at, ended[trip]);
    between = RETRY;
  }
  if (calls.flags[call] & CACHED) return;
  // A line of the ledger's older format tells no attempts: what it has is one span.
  const untold = first[call] === first[call + 1] && calls.flags[call] & SUCCESS && !(calls.flags[call] & SHARED);
  add(untold ? WIRE : between, at, calls.end[call]);
}

// Each call gets the lowest lane that is free when it begins. What the cache gave has none: it has no length.
function lanesOf(calls) {
  const lane = new Int32Array(calls.n).fill(-1), free = [], busy = [];
  let lanes = 0;
  for (let call = 0; call < calls.n; call++) {
    if (calls.flags[call] & CACHED) continue;
    while (busy.length && busy[0][0] <= calls.begin[call]) push(free, [pop(busy)[1]]);
    lane[call] = free.length ? pop(free)[0] : lanes++;
    push(busy, [calls.end[call], lane[call]]);
  }
  return lane;
}

// A heap of arrays, by their first number.
function push(heap, item) {
  let at = heap.push(item) - 1;
  for (let up; at > 0 && heap[(up = (at - 1) >> 1)][0] > item[0]; at = up) {
    heap[at] = heap[up];
    heap[up] = item;
  }
}

function pop(heap) {
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

// For each state the mean number of calls in it, in `columns` equal parts of the time from `from` to `to`.
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

// How many attempts are on the wire from each moment on, and how many might be: each run has a limit of its own.
function stepsOf(calls) {
  const { first, began, ended, window } = calls.trip, events = [], last = new Map();
  for (let call = 0; call < calls.n; call++) {
    for (let trip = first[call]; trip < first[call + 1]; trip++) {
      events.push([began[trip], 1, calls.run[call], window[trip]], [ended[trip], -1, calls.run[call], null]);
      last.set(calls.run[call], Math.max(last.get(calls.run[call]) ?? 0, ended[trip]));
    }
  }
  for (const [run, end] of last) events.push([end, 0, run, 0]);
  events.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const limits = new Map(), steps = { at: [], on: [], limit: [] };
  let on = 0, limit = 0;
  for (const [at, change, run, window] of events) {
    on += change;
    if (window !== null) {
      limit += window - (limits.get(run) ?? 0);
      limits.set(run, window);
    }
    steps.at.push(at);
    steps.on.push(on);
    steps.limit.push(limit);
  }
  return steps;
}

// Times are kept to a tenth of a millisecond: what is shorter than a few of these is no overlap, but rounding.
const GRAIN_MS = 0.35;

// The highest of both, and the mean of what is on the wire, in each of `columns` equal parts of the time from `from` to `to`.
function peaksOf(steps, from, to, columns) {
  const on = new Float64Array(columns), mean = new Float64Array(columns), limit = new Float64Array(columns);
  const scale = columns / (to - from);
  for (let step = 0; step < steps.at.length; step++) {
    const start = steps.at[step], end = step + 1 < steps.at.length ? steps.at[step + 1] : start;
    if (end < from || start > to || end - start < GRAIN_MS) continue;
    const left = Math.max(0, Math.floor((start - from) * scale)), right = Math.min(columns - 1, Math.floor((end - from) * scale));
    for (let column = left; column <= right; column++) {
      on[column] = Math.max(on[column], steps.on[step]);
      mean[column] += steps.on[step] * (Math.min(column + 1, (end - from) * scale) - Math.max(column, (start - from) * scale));
      limit[column] = Math.max(limit[column], steps.limit[step]);
    }
  }
  return { on, mean, limit };
}
