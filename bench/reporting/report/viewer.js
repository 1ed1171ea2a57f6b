// One text as several models see it: how it was cut, and what every byte cost.

// --- a text as what can be shown: characters, or bytes where a character cannot be shown or is cut inside

const decoder = new TextDecoder("utf-8", { fatal: true });
const hex = (b) => b.toString(16).padStart(2, "0");

function characterAt(data, at) {
  const size = Math.max(1, data[at] < 0x80 ? 1 : 1 + following(data[at]));
  try {
    return [decoder.decode(data.subarray(at, at + size)), size];
  } catch {
    return [null, 1];
  }
}

function cellsOf(data, starts) {
  const cells = [];
  let patch = -1;
  for (let at = 0; at < data.length; ) {
    const [character, size] = characterAt(data, at);
    const inside = starts && starts.slice(at + 1, at + size).some(Boolean);
    const control = character !== null && character < " " ? String.fromCodePoint(0x2400 + data[at]) : null;
    if (starts && starts[at]) patch++;
    if (control !== null) cells.push({ shown: control, begin: at, end: at + 1, patch, raw: true, newline: data[at] === 10 });
    else if (character === null || inside || /^[\p{C}\p{Z}]$/u.test(character) && character !== " ")
      for (let i = at; i < at + size; i++) {
        if (i > at && starts && starts[i]) patch++;
        cells.push({ shown: `‹${hex(data[i])}›`, begin: i, end: i + 1, patch, raw: true });
      }
    else if (/^\p{M}$/u.test(character) && cells.length && !(starts && starts[at])) {
      cells[cells.length - 1].shown += character;
      cells[cells.length - 1].end = at + size;
    } else cells.push({ shown: character, begin: at, end: at + size, patch });
    at += size;
  }
  return cells;
}

// --- one strip: a model's view

const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const TALLEST = 10; // bits that a bar of full height stands for

function facts(view) {
  const { data, starts, bits } = view;
  const out = [];
  const patches = starts ? starts.filter(Boolean).length : 0;
  if (starts) out.push(`${patches} patches, ${(data.length / Math.max(1, patches)).toFixed(2)} bytes each`);
  else out.push("no patches");
  if (bits) {
    out.push(`${(sum(bits) / Math.max(1, data.length)).toFixed(3)} bits per byte`);
    if (starts && patches < data.length && patches) {
      const first = sum(bits.filter((_, t) => starts[t])) / patches;
      const later = sum(bits.filter((_, t) => !starts[t])) / (data.length - patches);
      out.push(`a patch's first byte ${first.toFixed(2)}, later ones ${later.toFixed(2)}`);
    }
    if (view.flags) out.push(`${((100 * sum(view.flags)) / sum(bits)).toFixed(0)} % of the bits on boundaries`);
  }
  return out.join(" · ");
}

function stripOf(view, tell) {
  const strip = element("section", { class: "strip" });
  const told = element("output", { class: "told" });
  const head = element("div", { class: "strip-head" }, element("h4", {}, view.label), told);
  const text = element("div", {
    class: view.bits ? "text scored" : "text", tabindex: 0, role: "group", dir: "auto",
    "aria-label": `${view.label}: ${facts(view)}. Arrow keys go from byte to byte.`,
  });
  const cells = cellsOf(view.data, view.starts);
  let group = null, last = null;
  const spans = cells.map((cell) => {
    if (group === null || cell.patch !== last) {
      group = element("span", { class: view.starts ? (cell.patch % 2 ? "patch odd" : "patch") : "whole" });
      text.append(group);
      last = cell.patch;
    }
    const cost = view.bits ? sum(view.bits.slice(cell.begin, cell.end)) : 0;
    const span = element("i", cell.raw ? { class: "raw" } : {}, cell.shown);
    if (view.bits) span.style.setProperty("--bits", Math.min(1, cost / TALLEST).toFixed(3));
    span.dataset.at = cell.begin;
    group.append(span);
    if (cell.newline) group.append(element("br"));
    return span;
  });
  const cellAt = (t) => cells.findIndex((cell) => cell.begin <= t && t < cell.end);
  const placeOf = (event) => event.target.dataset && event.target.dataset.at;
  text.addEventListener("pointerover", (event) => placeOf(event) !== undefined && tell(Number(placeOf(event))));
  text.addEventListener("click", (event) => placeOf(event) !== undefined && tell(Number(placeOf(event))));
  text.addEventListener("keydown", (event) => {
    const here = Math.max(0, cellAt(strip.at ?? 0));
    const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: cells.length - 1 }[event.key];
    if (to === undefined || !cells.length) return;
    event.preventDefault();
    tell(cells[Math.min(cells.length - 1, Math.max(0, to))].begin);
  });
  text.addEventListener("focus", () => cells.length && strip.at === undefined && tell(0));
  strip.append(head, text, element("p", { class: "facts" }, facts(view)));
  strip.show = (t) => {
    strip.at = t;
    const found = cellAt(t);
    spans.forEach((span, i) => span.classList.toggle("here", i === found));
    told.textContent = found < 0 ? "" : describeByte(view, cells[found]);
  };
  return strip;
}

function describeByte(view, cell) {
  const parts = [];
  if (view.bits) parts.push(`${sum(view.bits.slice(cell.begin, cell.end)).toFixed(2)} bits`);
  if (view.flags) parts.push(`${sum(view.flags.slice(cell.begin, cell.end)).toFixed(2)} of them on boundaries`);
  if (view.starts) {
    const from = view.starts.lastIndexOf(true, cell.begin), next = view.starts.indexOf(true, cell.begin + 1);
    parts.push(`byte ${cell.begin - from + 1} of a patch of ${(next < 0 ? view.data.length : next) - from}`);
  }
  return parts.join(", ");
}

// --- the whole viewer

function bytesOf(example) {
  if (example.base64 !== undefined) return Uint8Array.from(atob(example.base64), (c) => c.charCodeAt(0));
  return new TextEncoder().encode(example.text);
}

function viewOf(label, data, seen) {
  const starts = seen.starts === null ? null : new Array(data.length).fill(false);
  for (const place of seen.starts ?? []) starts[place] = true;
  const hundredths = (numbers) => (numbers ? numbers.map((n) => n / 100) : null);
  return { label, data, starts, bits: hundredths(seen.centibits), flags: hundredths(seen.flag_centibits) };
}

function startViewer(root, suites) {
  const [choice, typed, stride] = ["#text-choice", "#typed-text", "#typed-stride"].map((id) => root.querySelector(id));
  const [rows, strips, where, typing] = [".rows", ".strips", ".where", ".typing"].map((name) => root.querySelector(name));
  const hidden = new Set();

  suites.forEach((suite, i) => {
    const group = element("optgroup", { label: suite.name });
    suite.texts.forEach((text, j) => group.append(element("option", { value: `${i}/${j}` }, text.title)));
    if (suite.texts.length) choice.append(group);
  });
  choice.append(element("option", { value: "typed" }, "Type a text …"));

  function views() {
    if (choice.value === "typed") {
      const data = new TextEncoder().encode(typed.value);
      const size = Number(stride.value) >= 1 ? stride.value : "1";
      return Object.entries(CUTS).map(([name, cut]) => ({
        label: name === "stride" ? `stride ${size}` : name, data, starts: cut(data, size), bits: null, flags: null,
      }));
    }
    const [i, j] = choice.value.split("/").map(Number);
    const text = suites[i].texts[j], data = bytesOf(text);
    return text.seen.map((seen) => viewOf(seen.row, data, seen));
  }

  function tell(t, data) {
    for (const strip of strips.children) strip.show(t);
    const [character] = characterAt(data, t);
    where.textContent = `Byte ${t} of ${data.length}: ${character === null ? "" : `“${character}” `}0x${hex(data[t])}`;
  }

  function draw() {
    const all = views();
    typing.hidden = choice.value !== "typed";
    strips.replaceChildren();
    rows.replaceChildren();
    where.textContent = all[0] && all[0].data.length ? "Point at a letter, or focus a text and use the arrow keys." : "";
    const drawStrips = () => strips.replaceChildren(
      ...all.filter((view) => !hidden.has(view.label)).map((view) => stripOf(view, (t) => tell(t, view.data))));
    for (const view of all) {
      const box = element("input", { type: "checkbox" });
      box.checked = !hidden.has(view.label);
      box.addEventListener("change", () => {
        box.checked ? hidden.delete(view.label) : hidden.add(view.label);
        drawStrips();
      });
      rows.append(element("label", { class: "chip" }, box, view.label));
    }
    drawStrips();
  }
  for (const control of [choice, typed, stride]) control.addEventListener("input", draw);
  draw();
}
