// Starts the page.
const dark = matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;
const isDark = () => (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";

function followTheme(redraw) {
  const button = byId("theme");
  const show = () => {
    button.setAttribute("aria-pressed", isDark());
    redraw();
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    show();
  });
  dark.addEventListener("change", show);
  let before;
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
    redraw();
  });
  addEventListener("afterprint", () => {
    if (before === undefined) delete root.dataset.theme;
    else root.dataset.theme = before;
    redraw();
  });
  show();
}

async function start() {
  const calls = await unpack(byId("data").textContent);
  if (!calls.n) return followTheme(() => {});
  const table = makeTable(calls);
  const timeline = makeTimeline(calls, table.reveal);
  for (const button of document.querySelectorAll("[data-find]")) {
    button.addEventListener("click", () => table.find(button.dataset.find));
  }
  followTheme(timeline.redraw);
}

start().then(
  () => (root.dataset.ready = "yes"),
  (error) => {
    byId("failure").hidden = false;
    byId("failure").textContent = `The timeline and the table can't be shown: ${error.message}. A browser of 2023 or newer is needed.`;
    throw error;
  },
);
