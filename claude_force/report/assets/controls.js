// Moves the timeline by buttons, keys and pointer, and shows hints.
const MIN_DRAG_PIXELS = 5;

function addControls(timeline) {
  const { view, whole, places, show } = timeline;
  const zoom = (factor, at = (view.from + view.to) / 2) => show(at - (at - view.from) * factor, at + (view.to - at) * factor);
  const move = (part) => show(view.from + (view.to - view.from) * part, view.to + (view.to - view.from) * part);
  const moves = {
    left: () => move(-0.25),
    right: () => move(0.25),
    in: () => zoom(0.5),
    out: () => zoom(2),
    all: () => show(whole.from, whole.to),
  };
  const keys = { ArrowLeft: "left", ArrowRight: "right", "+": "in", "=": "in", "-": "out", 0: "all", Escape: "all" };
  for (const button of document.querySelectorAll("[data-view]")) button.addEventListener("click", moves[button.dataset.view]);
  places.lanes.addEventListener("keydown", (event) => {
    const name = !event.ctrlKey && !event.metaKey && !event.altKey && keys[event.key];
    if (!name) return;
    event.preventDefault();
    moves[name]();
  });
  for (const place of [places.lanes, places.wire]) {
    onDrag(place, view, { dropped: show, clicked: (x, y) => place === places.lanes && revealAt(timeline, x, y) });
    place.addEventListener("dblclick", moves.all);
    place.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.shiftKey) return;
      event.preventDefault();
      zoom((event.deltaY || event.deltaX) > 0 ? 1.25 : 0.8, timeAt(place, view, event.clientX));
    }, { passive: false });
  }
  onDrag(places.brush, whole, {
    dropped: show,
    clicked: (x) => {
      const at = timeAt(places.brush, whole, x + places.brush.getBoundingClientRect().left), half = (view.to - view.from) / 2;
      show(at - half, at + half);
    },
  });
}

function revealAt({ callAt, reveal }, x, y) {
  const call = callAt(x, y);
  if (call !== undefined) reveal(call);
}

function timeAt(place, view, clientX) {
  const { left, width } = place.getBoundingClientRect();
  const part = (clientX - left - LEFT) / (width - LEFT - RIGHT);
  return view.from + Math.min(1, Math.max(0, part)) * (view.to - view.from);
}

// A press that moves selects a span of time; a press that doesn't move is a click.
function onDrag(place, view, { dropped, clicked }) {
  const box = element("div", { class: "chosen", hidden: "" });
  place.append(box);
  let start = null;
  place.addEventListener("pointerdown", (event) => {
    if (event.button || event.pointerType === "touch" && !event.isPrimary) return;
    start = event.clientX;
    place.setPointerCapture(event.pointerId);
  });
  place.addEventListener("pointermove", (event) => {
    if (start === null) return;
    const { left } = place.getBoundingClientRect();
    box.hidden = Math.abs(event.clientX - start) < MIN_DRAG_PIXELS;
    box.style.left = `${Math.max(LEFT, Math.min(start, event.clientX) - left)}px`;
    box.style.width = `${Math.abs(event.clientX - start)}px`;
  });
  place.addEventListener("pointercancel", () => {
    start = null;
    box.hidden = true;
  });
  place.addEventListener("pointerup", (event) => {
    if (start === null) return;
    const from = Math.min(start, event.clientX), to = Math.max(start, event.clientX), { left, top } = place.getBoundingClientRect();
    start = null;
    box.hidden = true;
    if (to - from >= MIN_DRAG_PIXELS) dropped(timeAt(place, view, from), timeAt(place, view, to));
    else clicked(event.clientX - left, event.clientY - top);
  });
}

// Describes what is under the pointer.
function addHints({ calls, places, view, spans, steps, callAt }) {
  const tip = byId("tip");
  const hints = {
    lanes: (event, at) => {
      const { left, top } = places.lanes.getBoundingClientRect(), call = callAt(event.clientX - left, event.clientY - top);
      return call === undefined ? describeStates(calls, spans, at) : describeCall(calls, call);
    },
    wire: (_, at) => describeWire(calls, steps, at),
  };
  for (const [name, words] of Object.entries(hints)) {
    places[name].addEventListener("pointermove", (event) => {
      if (event.pointerType === "touch") return;
      tip.textContent = words(event, timeAt(places[name], view, event.clientX));
      tip.hidden = false;
      const { width, height } = tip.getBoundingClientRect();
      tip.style.left = `${Math.min(event.clientX + 14, innerWidth - width - 8)}px`;
      tip.style.top = `${event.clientY + 18 + height > innerHeight ? event.clientY - height - 10 : event.clientY + 18}px`;
    });
    places[name].addEventListener("pointerleave", () => (tip.hidden = true));
  }
}

function describeCall(calls, call) {
  const error = calls.names.error[calls.error[call]], status = statusOf(calls, call);
  return [
    `${calls.names.agent[calls.agent[call]]}, ${calls.names.model[calls.model[call]] ?? "model unknown"}`,
    error ?? Object.fromEntries(STATUSES)[status],
    `wall ${duration(calls.wall[call])}, waiting ${duration(calls.wait[call])}, ${pluralize(calls.attempts[call], "attempt")}`,
    ...(calls.turns[call] ? [turnsOf(calls, call)] : []),
    clock(calls.from + calls.begin[call], 1),
  ].join("\n");
}

function turnsOf(calls, call) {
  const { first } = calls.tools;
  return `${pluralize(calls.turns[call], "turn")}, ${pluralize(first[call + 1] - first[call], "tool call")}`;
}

function describeStates(calls, spans, at) {
  const numbers = STATES.map(() => 0);
  for (let span = 0; span < spans.state.length; span++) {
    if (spans.start[span] <= at && spans.end[span] > at) numbers[spans.state[span]] += 1;
  }
  const words = ["on the wire, to be answered", "on the wire, to fail", "waiting to try again", "waiting their turn", "running tools"];
  return [clock(calls.from + at, 1), ...numbers.map((count, state) => `${number(count)} ${words[state]}`)].join("\n");
}

function describeWire(calls, steps, at) {
  let low = 0, high = steps.at.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps.at[middle] <= at) low = middle + 1;
    else high = middle;
  }
  const on = low ? steps.on[low - 1] : 0, limit = low ? steps.limit[low - 1] : 0;
  return [clock(calls.from + at, 1), `${number(on)} on the wire`, limit ? `limit ${number(limit)}` : "nothing under way"].join("\n");
}
