// What the page does beyond being read: sorting, themes, tabs, records. Without it all tables and plots are there.

function element(name, attributes = {}, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...inside);
  return made;
}

// --- tables

function sortable(table) {
  const heads = [...table.querySelectorAll("thead th")];
  const body = table.tBodies[0];
  const original = [...body.rows];
  const value = (row, at) => row.cells[at].dataset.value;
  heads.forEach((head, at) => {
    const button = element("button", { type: "button", class: "sort" });
    button.append(...head.childNodes, element("span", { class: "arrow", "aria-hidden": "true" }));
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const next = before === null ? "ascending" : before === "ascending" ? "descending" : null;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (next) head.setAttribute("aria-sort", next);
      const way = next === "descending" ? -1 : 1;
      // What has no value, pretrained rows (ranked among themselves), leaky ones and failed ones stay below.
      const marks = ["pretrained", "leaky", "failed"];
      const rank = (row) => 2 * (marks.findIndex((mark) => row.classList.contains(mark)) + 1) + (value(row, at) === undefined ? 1 : 0);
      const compare = (a, b) => {
        if (rank(a) !== rank(b)) return rank(a) - rank(b);
        const [x, y] = [value(a, at) ?? "", value(b, at) ?? ""];
        const numeric = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
        return way * (numeric ? Number(x) - Number(y) : x.localeCompare(y));
      };
      body.append(...(next ? [...original].sort(compare) : original));
    });
  });
}

function tabs(list) {
  const all = [...list.querySelectorAll('[role="tab"]')];
  const select = (chosen, focus = false) => {
    for (const tab of all) {
      tab.setAttribute("aria-selected", String(tab === chosen));
      tab.tabIndex = tab === chosen ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
    }
    if (focus) chosen.focus();
  };
  list.hidden = false;
  all.forEach((tab, i) => {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: all.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      select(all[(to + all.length) % all.length], true);
    });
  });
  select(all[0]);
}

// --- records: kept compressed, unpacked when they are asked for

async function recordText(run) {
  const packed = document.getElementById(`record-${run.suite}/${run.id}`).textContent;
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

function preview(value) {
  if (Array.isArray(value)) return value.length ? `[ ${value.length} ]` : "[ ]";
  const keys = Object.keys(value);
  const shown = keys.slice(0, 4).join(", ");
  return keys.length ? `{ ${shown}${keys.length > 4 ? ", …" : ""} }` : "{ }";
}

function tree(key, value, open = false) {
  if (value === null || typeof value !== "object") {
    const kind = value === null ? "null" : typeof value;
    return element("div", { class: "leaf" }, element("span", { class: "key" }, key), " ",
      element("span", { class: `value ${kind}` }, kind === "string" ? value : String(value)));
  }
  const flat = JSON.stringify(value);
  if (Array.isArray(value) && flat.length < 70)
    return element("div", { class: "leaf" }, element("span", { class: "key" }, key), " ",
      element("span", { class: "value" }, flat.replaceAll(",", ", ")));
  const details = element("details", {}, element("summary", {}, element("span", { class: "key" }, key), " ",
    element("span", { class: "preview" }, preview(value))));
  details.addEventListener("toggle", () => {
    if (!details.open || details.children.length > 1) return;
    const all = Object.entries(value), some = all.slice(0, 200);
    details.append(...some.map(([name, inner]) => tree(name, inner)));
    if (all.length > some.length)
      details.append(element("div", { class: "leaf" }, `… and ${all.length - some.length} more: see the file`));
  });
  details.open = open;
  return details;
}

function records(dialog, runs) {
  const [title, seeds, content] = ["h2", ".seeds", ".record"].map((name) => dialog.querySelector(name));
  const [download, copy, close, said] = [".download", ".copy", ".close", ".said"].map((name) => dialog.querySelector(name));
  let text = "";
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      said.textContent = "copied";
    } catch {
      said.textContent = "this browser does not let a page copy: download it";
    }
  });

  async function show(run) {
    said.textContent = "";
    for (const button of seeds.children) button.setAttribute("aria-pressed", String(button.dataset.run === run.id));
    content.replaceChildren("…");
    text = await recordText(run);
    const record = JSON.parse(text);
    content.replaceChildren(...Object.entries(record).map(([key, value]) => tree(key, value, key === "error" || key === "audits")));
    URL.revokeObjectURL(download.href);
    download.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    download.download = `${run.id}.json`;
  }

  return (suite, row) => {
    const found = runs.filter((run) => run.suite === suite && run.row === row);
    title.textContent = `${suite} · ${row}`;
    seeds.replaceChildren(...found.map((run) => {
      const button = element("button", { type: "button" }, `seed ${run.seed}${run.ok ? "" : " (failed)"}`);
      button.dataset.run = run.id;
      button.addEventListener("click", () => show(run));
      return button;
    }));
    dialog.showModal();
    show(found[0]);
  };
}

function openers(table, suite, runs, open) {
  for (const head of table.querySelectorAll('tbody th[scope="row"]')) {
    const row = head.dataset.value;
    if (!runs.some((run) => run.suite === suite && run.row === row)) continue; // a fit is of many runs
    const button = element("button", { type: "button", class: "row", title: `the record of ${row}` });
    button.append(...head.childNodes);
    button.addEventListener("click", () => open(suite, row));
    head.append(button);
  }
}

// --- themes

function themes(group) {
  const kept = () => { try { return localStorage.getItem("patchbench-theme"); } catch { return null; } };
  const set = (theme) => {
    document.documentElement.style.colorScheme = theme === "auto" ? "light dark" : theme;
    document.documentElement.dataset.theme = theme;
    try { localStorage.setItem("patchbench-theme", theme); } catch { /* a page from a file may keep nothing */ }
  };
  for (const radio of group.querySelectorAll("input")) {
    radio.checked = radio.value === (kept() ?? "auto");
    radio.addEventListener("change", () => set(radio.value));
  }
  set(kept() ?? "auto");
  group.hidden = false;
}

// --- all of it

themes(document.querySelector(".themes"));
const page = JSON.parse(document.getElementById("page-data").textContent);
const open = records(document.getElementById("record-dialog"), page.runs);
for (const suite of document.querySelectorAll("section.suite"))
  for (const table of suite.querySelectorAll("table")) {
    sortable(table);
    openers(table, suite.dataset.suite, page.runs, open);
  }
document.querySelectorAll('[role="tablist"]').forEach(tabs);
startViewer(document.getElementById("viewer"), page.suites);
document.documentElement.dataset.ready = "yes";
