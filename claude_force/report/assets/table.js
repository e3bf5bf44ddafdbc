// The table of calls: sortable, filtered, in pages; each row opens to its details.
const ROWS_PER_PAGE = 50;

function columnsOf(calls) {
  const day = calls.end.reduce((max, end) => Math.max(max, end), 0) > DAY;
  const named = (column) => ({
    values: ranked(calls.names[column], calls[column]),
    text: (call) => calls.names[column][calls[column][call]] ?? NOTHING,
  });
  const status = Array.from({ length: calls.n }, (_, call) => statusOf(calls, call));
  const label = Object.fromEntries(STATUSES);
  const tokens = calls.tokensIn.map((count, call) => count + calls.tokensOut[call]);
  return [
    { head: "Began", values: calls.begin, text: (call) => clock(calls.from + calls.begin[call], SECOND, day) },
    { head: "Agent", ...named("agent") },
    { head: "Model", ...named("model"), kind: "wide" },
    { head: "Status", values: status.map((name) => BY_IMPORTANCE.indexOf(name)), text: (call) => label[status[call]], kindOf: (call) => status[call] },
    { head: "Wall", values: calls.wall, text: (call) => duration(calls.wall[call]), kind: "numeric" },
    { head: "Waiting", values: calls.wait.map((wait) => wait ?? -1), text: (call) => duration(calls.wait[call]), kind: "numeric wide" },
    { head: "Attempts", values: calls.attempts, text: (call) => number(calls.attempts[call]), kind: "numeric wide" },
    { head: "Tokens", values: tokens, text: (call) => number(tokens[call]), kind: "numeric wide" },
    { head: "Paid", values: calls.cost.map((cost) => cost ?? -1), text: (call) => dollars(calls.cost[call]), kind: "numeric" },
  ];
}

// Compares names once, not once for each pair of rows.
function ranked(names, column) {
  const order = names.map((_, index) => index).sort((a, b) => String(names[a]).localeCompare(String(names[b])));
  const rank = [];
  order.forEach((index, place) => (rank[index] = place));
  return column.map((index) => rank[index]);
}

function makeTable(calls) {
  const columns = columnsOf(calls);
  const form = byId("filters"), body = byId("table").tBodies[0];
  const state = { column: 0, down: false, page: 0, found: [], open: new Set() };
  const heads = columns.map((column, index) => {
    const button = element("button", { type: "button" }, column.head);
    button.addEventListener("click", () => sortBy(index));
    return element("th", { scope: "col", class: column.kind ?? "" }, button);
  });
  byId("table").tHead.rows[0].append(...heads);
  fillSelects(calls, form);
  const texts = lazy(() => Array.from({ length: calls.n }, (_, call) => searchable(calls, call)));

  function sortBy(index) {
    state.down = state.column === index ? !state.down : heads[index].classList.contains("numeric");
    state.column = index;
    state.page = 0;
    arrange();
  }

  function arrange() {
    const { values } = columns[state.column], sign = state.down ? -1 : 1;
    state.found.sort((a, b) => sign * (values[a] - values[b]) || a - b);
    heads.forEach((head, index) => {
      head.setAttribute("aria-sort", index !== state.column ? "none" : state.down ? "descending" : "ascending");
    });
    draw();
  }

  function filter() {
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const agent = Number(form.elements.agent.value), model = Number(form.elements.model.value);
    const status = STATUSES.find(([name]) => name === form.elements.status.value);
    state.found = [];
    for (let call = 0; call < calls.n; call++) {
      if (agent >= 0 && calls.agent[call] !== agent) continue;
      if (model >= 0 && calls.model[call] !== model) continue;
      if (status && !status[2](calls, call)) continue;
      if (words.length && !words.every((word) => texts()[call].includes(word))) continue;
      state.found.push(call);
    }
    state.page = 0;
    byId("found").textContent = describeFound(calls, state.found);
    arrange();
  }

  function draw() {
    const pages = Math.max(1, Math.ceil(state.found.length / ROWS_PER_PAGE));
    state.page = Math.min(Math.max(0, state.page), pages - 1);
    const shown = state.found.slice(state.page * ROWS_PER_PAGE, (state.page + 1) * ROWS_PER_PAGE);
    body.replaceChildren(...shown.flatMap(rowsOf));
    byId("page").textContent = `Page ${number(state.page + 1)} of ${number(pages)}`;
    for (const button of document.querySelectorAll("[data-page]")) {
      button.disabled = ["first", "back"].includes(button.dataset.page) ? state.page === 0 : state.page === pages - 1;
    }
  }

  function rowsOf(call) {
    const cells = columns.slice(1).map((column) => {
      const kinds = [column.kind, column.kindOf?.(call)].filter(Boolean).join(" ");
      return element("td", kinds ? { class: kinds } : {}, column.text(call));
    });
    const isOpen = state.open.has(call);
    const label = `${columns[0].text(call)}, details`;
    const button = element("button", { type: "button", class: "open", "aria-expanded": isOpen, "aria-label": label }, columns[0].text(call));
    const row = element("tr", { class: "call", "data-call": call }, element("td", {}, button), ...cells);
    button.addEventListener("click", () => toggle(call, row, button));
    return isOpen ? [row, detailsOf(calls, call, columns.length)] : [row];
  }

  function toggle(call, row, button) {
    const opens = !state.open.has(call);
    button.setAttribute("aria-expanded", opens);
    if (opens) {
      state.open.add(call);
      row.after(detailsOf(calls, call, columns.length));
    } else {
      state.open.delete(call);
      row.nextElementSibling.remove();
    }
  }

  const turns = { first: () => 0, back: () => state.page - 1, next: () => state.page + 1, last: () => Infinity };
  for (const button of document.querySelectorAll("[data-page]")) {
    button.addEventListener("click", () => {
      state.page = turns[button.dataset.page]();
      draw();
    });
  }
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  byId("clear").addEventListener("click", () => {
    form.reset();
    filter();
  });
  filter();

  return {
    find(text) {
      form.reset();
      form.elements.text.value = text;
      filter();
      focusAndScroll(byId("calls"), form.elements.text);
    },
    reveal(call) {
      form.reset();
      state.open.add(call);
      filter();
      state.page = Math.floor(state.found.indexOf(call) / ROWS_PER_PAGE);
      draw();
      const row = body.querySelector(`[data-call="${call}"]`);
      focusAndScroll(row, row.querySelector("button"));
    },
  };
}

function fillSelects(calls, form) {
  const option = (value, text) => element("option", { value }, text);
  for (const column of ["agent", "model"]) {
    const used = new Set(calls[column]);
    const names = calls.names[column].map((name, index) => [index, name ?? "unknown"]).filter(([index]) => used.has(index));
    names.sort((a, b) => a[1].localeCompare(b[1]));
    form.elements[column].append(option(-1, "All"), ...names.map(([index, name]) => option(index, name)));
  }
  form.elements.status.append(option("", "All"), ...STATUSES.map(([name, label]) => option(name, label)));
}

function searchable(calls, call) {
  const named = ["agent", "model", "error", "workflow", "stop", "status", "run"].map((column) => calls.names[column][calls[column][call]]);
  const met = attemptsOf(calls, call).map((attempt) => calls.names.error[calls.timeline.error[attempt]]);
  return [...named, ...met, calls.request[call], calls.task[call]].filter((text) => text !== null).join("\n").toLowerCase();
}

function describeFound(calls, found) {
  const paid = found.reduce((sum, call) => sum + (calls.cost[call] ?? 0), 0);
  const failed = found.filter((call) => !(calls.flags[call] & SUCCESS)).length;
  const which = found.length === calls.n ? pluralize(calls.n, "call") : `${number(found.length)} of ${pluralize(calls.n, "call")}`;
  const unknown = found.filter((call) => calls.flags[call] & SUCCESS && calls.cost[call] === null).length;
  const known = paid || !unknown ? [`${dollars(paid)} paid`] : [];
  const money = [...known, ...(unknown ? [`${number(unknown)} of unknown price`] : [])];
  return `${which}, ${number(failed)} failed, ${money.join(", ")}`;
}

function attemptsOf(calls, call) {
  const { first } = calls.timeline;
  return Array.from({ length: first[call + 1] - first[call] }, (_, index) => first[call] + index);
}

function detailsOf(calls, call, width) {
  const name = (column) => calls.names[column][calls[column][call]];
  const facts = [
    ["Began", clock(calls.from + calls.begin[call], 1, true)],
    ["Ended", clock(calls.from + calls.end[call], 1, true)],
    ["Wall, waiting, service", [calls.wall, calls.wait, calls.service].map((times) => duration(times[call])).join(", ")],
    ["Model", name("model")],
    ["Tokens in and out", `${number(calls.tokensIn[call])} and ${number(calls.tokensOut[call])}`],
    ["Prompt cache read and written", `${number(calls.cacheRead[call])} and ${number(calls.cacheWrite[call])}`],
    ["Paid", calls.cost[call] === null ? "unknown" : dollars(calls.cost[call])],
    ["Saved", calls.saved[call] === null ? null : dollars(calls.saved[call])],
    ["Saved by the prompt cache", calls.promptSaved[call] === null ? null : dollars(calls.promptSaved[call])],
    ["Turns", calls.turns[call] ? turnsOf(calls, call) : null],
    ["Stop reason", name("stop")],
    ["Error", name("error")],
    ["HTTP status", name("status")],
    ["Workflow", name("workflow") && [name("workflow"), name("position")].filter((part) => part !== null).join(", step ")],
    ["Request id", calls.request[call], "code"],
    ["Task's hash", calls.task[call], "code"],
    ["Run", name("run"), "code"],
  ].filter(([, value]) => value !== null && value !== "");
  const list = element("dl", {}, ...facts.map(([term, value, tag]) =>
    element("div", {}, element("dt", {}, term), element("dd", {}, tag ? element(tag, {}, value) : String(value)))));
  const cell = element("td", { colspan: width }, list, attemptsTable(calls, call), ...toolsTable(calls, call));
  return element("tr", { class: "details" }, cell);
}

function attemptsTable(calls, call) {
  const attempts = attemptsOf(calls, call), { began, ended, limit, error } = calls.timeline;
  if (!attempts.length) return element("p", { class: "note" }, "No request was made for this call.");
  const row = (tag, ...cells) => element("tr", {}, ...cells.map((cell, index) => element(tag, { class: index && index < 4 ? "numeric" : "" }, cell)));
  const rows = attempts.map((attempt, index) => row("td", number(index + 1), `+${duration(began[attempt] - calls.begin[call])}`,
    duration(ended[attempt] - began[attempt]), number(limit[attempt]), calls.names.error[error[attempt]] ?? "answered"));
  return element("table", {}, element("thead", {}, row("th", "Attempt", "Sent after", "Took", "Limit then", "Outcome")), element("tbody", {}, ...rows));
}

function toolsTable(calls, call) {
  const { first, began, ended, turn, name, failed } = calls.tools, rows = [];
  const row = (tag, ...cells) => element("tr", {}, ...cells.map((cell, index) => element(tag, { class: index === 1 || index === 4 ? "" : "numeric" }, cell)));
  for (let tool = first[call]; tool < first[call + 1]; tool++) {
    rows.push(row("td", number(turn[tool]), calls.names.tool[name[tool]] ?? NOTHING, `+${duration(began[tool] - calls.begin[call])}`,
      duration(ended[tool] - began[tool]), failed[tool] ? "failed" : "done"));
  }
  if (!rows.length) return [];
  return [element("table", { class: "tools" }, element("thead", {}, row("th", "Turn", "Tool", "Began after", "Took", "Outcome")), element("tbody", {}, ...rows))];
}

function lazy(make) {
  let made;
  return () => (made ??= make());
}

function focusAndScroll(place, focused) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  focused.focus({ preventScroll: true });
  place.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
}
