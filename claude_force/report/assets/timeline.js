// The timeline and the concurrency below it: three canvases that show one span of time, the view.
const STRIP = 18, MIN_LANE_HEIGHT = 5, MAX_LANE_HEIGHT = 18;
const MIN_PIXELS_PER_CALL = 7;
// A refused request takes a millisecond, and must be visible.
const MIN_FAILURE_WIDTH = 3;

function makeTimeline(calls, reveal) {
  const spans = spansOf(calls), lane = lanesOf(calls), steps = stepsOf(calls);
  const end = calls.end.reduce((max, one) => Math.max(max, one), 0), margin = Math.max(1, end * 0.005);
  const whole = { from: -margin, to: end + margin }, view = { ...whole };
  const places = { lanes: byId("lanes"), brush: byId("brush"), wire: byId("wire") };
  let drawn = [], waiting = 0;

  function show(from, to) {
    const width = Math.min(whole.to - whole.from, Math.max(1, to - from));
    view.from = Math.min(Math.max(whole.from, from), whole.to - width);
    view.to = view.from + width;
    redraw();
  }

  function redraw() {
    drawLanes(new Canvas(places.lanes.firstChild, view));
    drawBrush(new Canvas(places.brush.firstChild, whole));
    drawWire(new Canvas(places.wire.firstChild, view));
    byId("view").textContent = describeView();
    const ends = { all: isWhole(), out: isWhole(), left: view.from <= whole.from, right: view.to >= whole.to };
    for (const [name, isEnd] of Object.entries(ends)) document.querySelector(`[data-view="${name}"]`).disabled = isEnd;
  }

  const isWhole = () => view.to - view.from >= whole.to - whole.from;

  function describeView() {
    const grain = view.to - view.from < 10 * SECOND ? 1 : SECOND;
    const ends = [Math.max(0, view.from), Math.min(end, view.to)].map((at) => clock(calls.from + at, grain, end > DAY));
    return `${ends.join(" to ")}${waiting ? `, ${pluralize(waiting, "more call")} waiting throughout` : ""}`;
  }

  function drawLanes(canvas) {
    const visible = [], cached = [];
    waiting = 0;
    for (let call = 0; call < calls.n; call++) {
      if (calls.end[call] < view.from || calls.begin[call] > view.to) continue;
      if (lane[call] < 0) cached.push(call);
      else if (waitsThroughout(call)) waiting += 1;
      else visible.push(call);
    }
    canvas.above = cached.length ? STRIP + 4 : 8;
    const lanes = [...new Set(visible.map((call) => lane[call]))].sort((a, b) => a - b);
    const pitch = Math.min(MAX_LANE_HEIGHT, canvas.room / Math.max(1, lanes.length));
    const roomy = canvas.across * lanes.length >= MIN_PIXELS_PER_CALL * visible.length;
    drawn = [];
    canvas.timeAxis(calls.from);
    if (pitch >= MIN_LANE_HEIGHT && roomy) {
      const tops = new Map(lanes.map((number, place) => [number, canvas.above + place * pitch]));
      for (const call of visible) drawCall(canvas, call, tops.get(lane[call]), pitch);
    } else {
      waiting = 0;
      drawDensity(canvas, densityOf(spans, view.from, view.to, canvas.columns), canvas.amountAxis.bind(canvas));
    }
    drawCached(canvas, cached);
  }

  function waitsThroughout(call) {
    for (let span = spans.first[call]; span < spans.first[call + 1]; span++) {
      if (spans.state[span] > FAIL && spans.start[span] <= view.from && spans.end[span] >= view.to) return true;
    }
    return false;
  }

  function drawCall(canvas, call, top, pitch) {
    const tight = pitch < 9, thick = tight ? pitch - 1.2 : pitch - 4, middle = top + thick / 2, line = tight ? 1.5 : 3;
    // Draw attempts on top of waits: the next wait would hide a short attempt.
    for (const onTop of [false, true]) {
      for (let span = spans.first[call]; span < spans.first[call + 1]; span++) {
        const state = spans.state[span];
        if (spans.end[span] < view.from || spans.start[span] > view.to || state <= FAIL !== onTop) continue;
        const x = canvas.x(spans.start[span]);
        const width = Math.max(state === FAIL ? MIN_FAILURE_WIDTH : 1, canvas.x(spans.end[span]) - x);
        if (state === RETRY) canvas.dashes(x, middle, width);
        else if (state === WAIT) canvas.bar("wait", x, middle - line / 2, width, line);
        else canvas.bar(STATES[state], x, top, width > 4 ? width - 1 : width, thick);
      }
    }
    const left = canvas.x(calls.begin[call]), right = canvas.x(calls.end[call]);
    if (calls.end[call] <= view.to) {
      if (!(calls.flags[call] & SUCCESS)) canvas.cross(right, middle, Math.min(4, thick / 2));
      if (calls.flags[call] & SHARED) canvas.ring(right, middle, Math.min(4, thick / 2));
    }
    drawn.push({ call, left, right, top, bottom: top + pitch });
  }

  function drawCached(canvas, cached) {
    let last = -Infinity;
    for (const call of cached) {
      const x = canvas.x(calls.begin[call]);
      drawn.push({ call, left: x - 4, right: x + 4, top: 0, bottom: STRIP });
      // Skip a mark that would cover the one before it.
      if (x - last >= 2) canvas.diamond((last = x), 8);
    }
    if (cached.length) canvas.text("cache", LEFT - 8, 12, "right");
  }

  function drawDensity(canvas, counts, ceilingOf) {
    const base = new Float64Array(canvas.columns), sum = (column) => counts.reduce((total, state) => total + state[column], 0);
    const max = Math.max(1e-9, ...Array.from(base, (_, column) => sum(column)));
    const ceiling = ceilingOf(max);
    counts.forEach((amounts, state) => {
      canvas.area(STATES[state], amounts, base, ceiling);
      amounts.forEach((amount, column) => (base[column] += amount));
    });
  }

  function drawBrush(canvas) {
    canvas.above = canvas.below = 2;
    drawDensity(canvas, densityOf(spans, whole.from, whole.to, canvas.columns), (max) => max);
    if (!isWhole()) canvas.frame(canvas.x(view.from), canvas.x(view.to));
  }

  function drawWire(canvas) {
    const { on, mean, limit } = peaksOf(steps, view.from, view.to, canvas.columns);
    canvas.timeAxis(calls.from);
    // Cap the axis: a limit far above the attempts would make them invisible.
    const max = Math.max(1, ...on), ceiling = canvas.amountAxis(Math.max(max, Math.min(max * 4, Math.max(...limit))));
    const base = new Float64Array(canvas.columns);
    canvas.on.globalAlpha = 0.4;
    canvas.area("wire", on, base, ceiling);
    canvas.on.globalAlpha = 1;
    canvas.area("wire", mean, base, ceiling);
    canvas.steps(limit, ceiling);
    const limits = limit.filter(Boolean), lowest = Math.min(...limits), highest = Math.max(...limits);
    const range = lowest === highest ? number(lowest) : `${number(lowest)} to ${number(highest)}`;
    const summary = limits.length ? `In the time shown: at most ${number(Math.max(...on))} on the wire, limit ${range}.` : "";
    byId("at-once").textContent = summary;
    places.wire.firstChild.setAttribute("aria-label", `Attempts on the wire over time. ${summary}`);
  }

  function callAt(x, y) {
    return drawn.find((one) => x >= one.left - 2 && x <= one.right + 2 && y >= one.top && y < one.bottom)?.call;
  }

  places.wire.hidden = places.wire.nextElementSibling.hidden = !steps.at.length;
  const lanes = lane.reduce((max, one) => Math.max(max, one + 1), 1);
  const tallest = places.lanes.clientHeight;
  places.lanes.style.height = `${Math.min(tallest, Math.max(110, lanes * MAX_LANE_HEIGHT + STRIP + 32))}px`;
  new ResizeObserver(redraw).observe(places.lanes);
  const timeline = { calls, places, spans, steps, view, whole, show, redraw, callAt, reveal };
  addControls(timeline);
  addHints(timeline);
  addRunSelect(timeline);
  return timeline;
}

// If the period was idle for most of its time, the last run is shown first.
const MIN_BUSY_SHARE = 0.25;

function addRunSelect({ calls, view, show, whole }) {
  const runs = new Map();
  for (let call = 0; call < calls.n; call++) {
    const run = runs.get(calls.run[call]) ?? { from: Infinity, to: 0, count: 0 };
    runs.set(calls.run[call], { from: Math.min(run.from, calls.begin[call]), to: Math.max(run.to, calls.end[call]), count: run.count + 1 });
  }
  if (runs.size < 2) return;
  const select = byId("runs").querySelector("select");
  const label = ([run, { from, count }]) => `${clock(calls.from + from, MINUTE, true)}, ${calls.names.run[run] ?? "unnamed"}, ${pluralize(count, "call")}`;
  select.append(element("option", { value: "" }, "All"), ...[...runs].map((run) => element("option", { value: run[0] }, label(run))));
  const choose = () => {
    const { from, to } = runs.get(Number(select.value)) ?? whole, margin = Math.max(1, (to - from) * 0.005);
    show(from - margin, to + margin);
  };
  select.addEventListener("change", choose);
  byId("runs").hidden = false;
  const busy = [...runs.values()].reduce((sum, { from, to }) => sum + to - from, 0);
  if (busy < MIN_BUSY_SHARE * (view.to - view.from)) {
    select.value = [...runs].reduce((last, run) => (run[1].to > last[1].to ? run : last))[0];
    choose();
  }
}
