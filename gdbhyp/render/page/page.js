"use strict";
// Everything that is shown comes from the one block of data, and is put into the page as text, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const LOOKS = {
  "code": ["--code", "executable, not writable", "X"],
  "data": ["--data", "writable, not executable", "W"],
  "constant": ["--constant", "only readable", "R"],
  "writable code": ["--wx", "writable and executable", "WX"],
  "device": ["--device", "device memory", "D"],
  "no access": ["--none", "mapped, no access (or the access flag is clear)", "–"],
  "several": ["--several", "several of these, too close together to draw", "…"],
};
const WORLDS = { host: "--data", guest: "--code", hypervisor: "--constant", unknown: "--none" };
const $ = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function table(headers, rows, numbers = []) {
  const head = element("tr", {}, ...headers.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map((row) => element("tr", {}, ...row.map((cell, at) =>
    element("td", numbers.includes(at) ? { class: "number" } : {}, cell ?? ""))));
  return element("div", { class: "wide" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
}

const hex = (value) => "0x" + value.toString(16);
function size(bytes) {
  const value = BigInt(bytes);
  for (const [shift, unit] of [[40n, "TiB"], [30n, "GiB"], [20n, "MiB"], [10n, "KiB"]]) {
    if (value >> shift) {
      const whole = value >> shift, rest = Number((value & ((1n << shift) - 1n)) * 10n >> shift);
      return (rest ? `${whole}.${rest}` : `${whole}`) + " " + unit;
    }
  }
  return `${value} bytes`;
}
const problems = (list) => list.map((text) => element("p", { class: "problem" }, text));
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// ---- machine and VMs -------------------------------------------------------

function facts(pairs) {
  return table(["", ""], pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => [element("strong", {}, name), value]));
}

function machine() {
  const now = data.status;
  $("subtitle").textContent = `${data.origin}, ${data.created}, gdbhyp ${data.gdbhyp}`;
  const rows = [["hypervisor", data.audit.hypervisor], ["host", data.search.host]];
  if (now) {
    const place = (address, symbol) => address === null ? null : `VA ${address}` + (symbol ? ` <${symbol}>` : "");
    const stage2 = now.stage2;
    rows.push(
      ["CPU", `${now.cpu} of ${now.cpus}, at ${place(now.pc, now.symbol)}`],
      ["level", `EL${now.el}, ${now.regime} regime, HCR_EL2.E2H = ${Number(now.e2h)}, TGE = ${Number(now.tge)}`],
      ["world", `${now.world}: ${now.world_reason}`],
      ["recognised by", now.identity.evidence.join("; ")],
      ["stage 2", (stage2.on ? "on" : "not in force") + `, VTTBR_EL2 = ${stage2.vttbr}, VTCR_EL2 = ${stage2.vtcr}` +
        (stage2.ipa_bits ? `, ${stage2.ipa_bits}-bit IPAs from level ${stage2.start_level}` : "")],
      ["last exception", now.last_exception ? now.last_exception.summary : "none"],
      ["taken from", now.last_exception ? place(now.exception_from, now.exception_from_symbol) : null],
      ["HCR_EL2", now.traps.join("; ")],
    );
  }
  $("machine-body").append(facts(rows), ...problems(data.problems));
}

function vms() {
  const found = data.search.vms, body = $("vms-body");
  if (!found.length) body.append(element("p", {}, "No VM was found."));
  for (const vm of found) {
    const title = `VM ${vm.vm}` + (vm.vmid === null ? "" : `, VMID ${vm.vmid}`) + (vm.protected ? ", protected" : "");
    body.append(element("h3", {}, title), facts([
      ["process", vm.process ? `${vm.process.name} (${vm.process.pid})` : null],
      ["stage-2 root", vm.root ? `PA ${vm.root}` : null],
      ["VTTBR_EL2", vm.vttbr], ["VTCR_EL2", vm.vtcr],
      ["IPA size", vm.ipa_bits ? `${vm.ipa_bits} bits` : null],
      ["found", vm.how + (vm.certain === false ? " (not certain)" : "")],
    ]));
    if (vm.vcpus.length) {
      body.append(table(["vCPU", "PC", "CPU", "state", "thread"], vm.vcpus.map((vcpu) => [
        String(vcpu.vcpu), vcpu.pc === null ? "not known" : `VA ${vcpu.pc}`, vcpu.cpu === null ? "" : String(vcpu.cpu),
        vcpu.state, vcpu.task ? `${vcpu.task.name} (${vcpu.task.pid})` : ""])));
    }
    if (vm.memslots.length) {
      body.append(table(["IPA", "size", "host VA", ""], vm.memslots.map((slot) => [
        slot.ipa, size(slot.size), slot.host_va ?? "not known", slot.read_only ? "read-only" : slot.log_dirty ? "dirty log" : ""])));
    }
  }
  body.append(...problems(data.search.problems));
}

// ---- maps ------------------------------------------------------------------

const trees = data.maps.map((map) => ({
  ...map,
  bands: map.bands.map(([start, length, output, ranges, mapped, look, rights, memory]) => {
    const first = BigInt("0x" + start), bytes = BigInt("0x" + length);
    return {
      start: first, end: first + bytes, output: output === null ? null : BigInt("0x" + output), ranges,
      mapped: BigInt("0x" + mapped), look: map.words[look],
      rights: rights < 0 ? null : map.words[rights], memory: memory < 0 ? null : map.words[memory],
    };
  }),
}));
const canvas = $("map");
let tree = null, view = null, chosen = -1;

function describe(band) {
  const where = `${tree.input_space} ${hex(band.start)} to ${hex(band.end)} (${size(band.end - band.start)})`;
  const words = [LOOKS[band.look][1], band.rights, band.memory].filter((word) => word);
  const leads = band.output === null
    ? `${band.ranges} ranges drawn as one, ${size(band.mapped)} of them mapped`
    : `to ${tree.output_space} ${hex(band.output)}`;
  return `${where} ${leads}: ${words.join(", ")}`;
}

function patterned(context, look, x, y, width, height) {
  context.fillStyle = colour(LOOKS[look][0]);
  context.fillRect(x, y, width, height);
  if (width < 6) return;
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  context.strokeStyle = colour("--ground");
  context.globalAlpha = 0.45;
  context.lineWidth = 1.5;
  context.beginPath();
  const step = look === "writable code" ? 6 : 10;
  if (look === "code" || look === "writable code") {
    for (let at = x - height; at < x + width; at += step) { context.moveTo(at, y + height); context.lineTo(at + height, y); }
  }
  if (look === "writable code") {
    for (let at = x - height; at < x + width; at += step) { context.moveTo(at, y); context.lineTo(at + height, y + height); }
  }
  if (look === "device") for (let at = y + 5; at < y + height; at += 8) { context.moveTo(x, at); context.lineTo(x + width, at); }
  if (look === "constant") for (let at = x + 5; at < x + width; at += 10) { context.moveTo(at, y); context.lineTo(at, y + height); }
  context.stroke();
  context.restore();
}

function prepared(target) {
  const ratio = window.devicePixelRatio || 1, box = target.getBoundingClientRect();
  const width = Math.max(1, Math.round(box.width)), height = Math.max(1, Math.round(box.height));
  if (target.width !== width * ratio || target.height !== height * ratio) { target.width = width * ratio; target.height = height * ratio; }
  const context = target.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return [context, width, height];
}

// The first band that ends behind an address.
function firstBehind(address) {
  let low = 0, high = tree.bands.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (tree.bands[middle].end > address) high = middle; else low = middle + 1;
  }
  return low;
}

function draw() {
  if (!tree) return;
  const [context, width, height] = prepared(canvas), span = Number(view.end - view.start);
  const at = (address) => Number(address - view.start) / span * width;
  let drawn = 0;
  for (let number = firstBehind(view.start); number < tree.bands.length; number += 1) {
    const band = tree.bands[number];
    if (band.start >= view.end) break;
    const left = Math.max(0, at(band.start)), right = Math.min(width, at(band.end));
    patterned(context, band.look, left, 14, Math.max(1.5, right - left), height - 28);
    if (right - left > 34) {
      context.fillStyle = colour("--ground");
      context.font = "bold 13px system-ui, sans-serif";
      context.fillText(LOOKS[band.look][2], left + 5, height - 19);
    }
    if (number === chosen) {
      context.strokeStyle = colour("--ink");
      context.lineWidth = 2.5;
      context.strokeRect(left - 1, 4, Math.max(3, right - left) + 2, height - 8);
    }
    drawn += 1;
  }
  $("scale").replaceChildren(element("span", {}, hex(view.start)),
    element("span", {}, `${size(view.end - view.start)} in view, ${drawn} bands`), element("span", {}, hex(view.end)));
  $("details").textContent = chosen >= 0 ? describe(tree.bands[chosen]) : "Choose a band: click it, or press n.";
  if ($("list").open) list();
}

function list() {
  const from = firstBehind(view.start), rows = [];
  for (let number = from; number < tree.bands.length && rows.length < 500 && tree.bands[number].start < view.end; number += 1) {
    const band = tree.bands[number];
    rows.push([hex(band.start), hex(band.end), band.output === null ? `${band.ranges} ranges` : hex(band.output),
      size(band.mapped), band.rights ?? "", band.memory ?? "", LOOKS[band.look][1]]);
  }
  const headers = ["start", "end", tree.output_space, "mapped", "rights", "memory", "what it is"];
  $("list-body").replaceChildren(table(headers, rows),
    element("p", { class: "faint" }, rows.length === 500 ? "The first 500 in view; zoom in for others." : ""));
}

const LIMIT = 1n << 64n, SMALLEST = 0x1000n;
function show(start, end) {
  let length = end - start;
  if (length < SMALLEST) { start -= (SMALLEST - length) / 2n; length = SMALLEST; }
  if (length > LIMIT) length = LIMIT;
  if (start < 0n) start = 0n;
  if (start + length > LIMIT) start = LIMIT - length;
  view = { start, end: start + length };
  draw();
}

function around(start, end) {
  const margin = (end - start) / 2n + SMALLEST;
  show(start - margin, end + margin);
}

function zoom(factor, place = 0.5) {
  const span = view.end - view.start, scaled = BigInt(Math.max(1, Math.round(factor * 1000)));
  const wanted = span * scaled / 1000n || 1n;
  const pivot = view.start + span * BigInt(Math.round(place * 1000)) / 1000n;
  const start = pivot - wanted * BigInt(Math.round(place * 1000)) / 1000n;
  show(start, start + wanted);
}

function pan(part) {
  const by = (view.end - view.start) * BigInt(Math.round(part * 1000)) / 1000n;
  let start = view.start + by;
  if (start < 0n) start = 0n;
  show(start, start + (view.end - view.start));
}

function fit() {
  if (!tree.bands.length) show(0n, 1n << 40n);
  else around(tree.bands[0].start, tree.bands[tree.bands.length - 1].end);
}

function choose(number, move = true) {
  if (number < 0 || number >= tree.bands.length) return;
  chosen = number;
  const band = tree.bands[number];
  if (move && (band.start < view.start || band.end > view.end)) around(band.start, band.end); else draw();
}

function step(by) {
  choose(chosen < 0 ? firstBehind(view.start) : chosen + by);
}

function open(number) {
  tree = trees[number];
  chosen = -1;
  $("tree").value = String(number);
  $("tree-summary").textContent = `${tree.input_space} to ${tree.output_space}: ${tree.ranges} ranges, ${size(tree.mapped)} mapped` +
    (tree.coarse ? `, drawn as ${tree.bands.length} bands` : "");
  $("map-problems").replaceChildren(...problems(tree.problems));
  chips();
  fit();
}

// Stretches with something in them: addresses are mostly empty, so a person goes there at once.
function chips() {
  $("chips").replaceChildren(...tree.stretches.map(([start, length]) => {
    const first = BigInt("0x" + start), bytes = BigInt("0x" + length);
    return element("button", { type: "button", onclick: () => around(first, first + bytes) }, `${hex(first)} +${size(bytes)}`);
  }));
}

function goTo(label, address) {
  const number = trees.findIndex((each) => each.label === label);
  if (number < 0) return false;
  open(number);
  const band = firstBehind(address);
  if (band < tree.bands.length && tree.bands[band].start <= address) { chosen = band; around(tree.bands[band].start, tree.bands[band].end); }
  else show(address - 0x100000n, address + 0x100000n);
  $("maps").scrollIntoView();
  canvas.focus({ preventScroll: true });
  return true;
}

function search(text) {
  const query = text.trim(), hits = [];
  if (/^(0x)?[0-9a-f]+$/i.test(query)) {
    const address = BigInt(query.toLowerCase().startsWith("0x") ? query : "0x" + query);
    for (const each of trees) {
      for (const band of each.bands) {
        const inside = band.start <= address && address < band.end;
        const leads = band.output !== null && band.output <= address && address < band.output + (band.end - band.start);
        if (inside || leads) {
          const input = inside ? address : band.start + (address - band.output);
          const words = inside ? `${each.input_space} in ${each.label}` : `${each.output_space} reached from ${each.input_space} ${hex(input)} of ${each.label}`;
          hits.push([words, () => goTo(each.label, input)]);
        }
        if (hits.length >= 50) break;
      }
    }
  } else if (query) {
    const wanted = query.toLowerCase();
    trees.forEach((each, number) => { if (each.label.toLowerCase().includes(wanted)) hits.push([each.label, () => open(number)]); });
    data.audit.findings.forEach((finding, number) => {
      if (`${finding.rule} ${finding.message}`.toLowerCase().includes(wanted)) {
        hits.push([`finding ${finding.rule}`, () => { location.hash = ""; location.hash = `finding-${number}`; }]);
      }
    });
  }
  const shown = hits.slice(0, 50).map(([words, action]) => element("button", { type: "button", onclick: action }, words));
  $("hits").replaceChildren(query ? `${hits.length} found${hits.length ? ": " : ""}` : "", ...shown);
  if (hits.length) hits[0][1]();
}

function legend() {
  $("legend").replaceChildren(...Object.entries(LOOKS).map(([look, [, words, letter]]) => {
    const sample = element("canvas", { "aria-hidden": "true" });
    const item = element("li", {}, sample, `${letter}  ${words}`);
    requestAnimationFrame(() => { const [context, width, height] = prepared(sample); patterned(context, look, 0, 0, width, height); });
    return item;
  }));
}

function maps() {
  if (!trees.length) { canvas.remove(); $("tree-summary").textContent = "No table could be drawn."; return; }
  $("tree").append(...trees.map((each, number) => element("option", { value: String(number) }, each.label)));
  $("tree").addEventListener("change", (event) => open(Number(event.target.value)));
  $("zoom-in").addEventListener("click", () => zoom(0.5));
  $("zoom-out").addEventListener("click", () => zoom(2));
  $("fit").addEventListener("click", fit);
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("list").addEventListener("toggle", () => draw());
  $("search").addEventListener("submit", (event) => { event.preventDefault(); search($("query").value); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    if (event.shiftKey) pan(Math.sign(event.deltaY + event.deltaX) * 0.15);
    else zoom(event.deltaY > 0 ? 1.25 : 0.8, (event.clientX - box.left) / box.width);
  }, { passive: false });
  let held = null;
  canvas.addEventListener("pointerdown", (event) => { held = { x: event.clientX, start: view.start, moved: false }; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => {
    if (!held || Math.abs(event.clientX - held.x) < 4) return;
    held.moved = true;
    const span = view.end - view.start, part = (held.x - event.clientX) / canvas.getBoundingClientRect().width;
    let start = held.start + span * BigInt(Math.round(part * 10000)) / 10000n;
    if (start < 0n) start = 0n;
    show(start, start + span);
  });
  canvas.addEventListener("pointerup", (event) => {
    const clicked = held && !held.moved;
    held = null;
    if (!clicked) return;
    const box = canvas.getBoundingClientRect(), span = view.end - view.start;
    const near = (part) => view.start + span * BigInt(Math.max(0, Math.round(part * 1e6))) / 1000000n;
    const place = (event.clientX - box.left) / box.width, number = firstBehind(near(place - 2 / box.width));
    if (number < tree.bands.length && tree.bands[number].start <= near(place + 2 / box.width)) choose(number, false);
  });
  const keys = { "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2),
    Home: fit, n: () => step(1), p: () => step(-1) };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  new ResizeObserver(draw).observe(canvas);
  open(0);
}

// ---- findings --------------------------------------------------------------

function evidence(item) {
  const parts = [item.text];
  if (item.descriptor_address !== null) parts.push(`descriptor ${item.descriptor} at ${item.descriptor_space} ${item.descriptor_address}`);
  if (item.register !== null) parts.push(`${item.register} = ${item.value} on CPU ${item.cpu}`);
  const shown = trees.some((each) => each.label === item.tree) && item.input !== null;
  const button = shown ? element("button", { type: "button", onclick: () => goTo(item.tree, BigInt(item.input)) },
    `Show ${item.input_space} ${item.input} of ${item.tree}`) : null;
  return element("li", {}, parts.join("; ") + " ", button);
}

function findings() {
  const body = $("findings-body"), audit = data.audit;
  const counts = {};
  audit.findings.forEach((finding) => { counts[finding.severity] = (counts[finding.severity] || 0) + 1; });
  const words = Object.entries(counts).map(([severity, count]) => `${count} ${severity}`);
  body.append(element("p", {}, audit.findings.length ? words.join(", ") : "Nothing was found by the rules that could be judged."));
  audit.findings.forEach((finding, number) => {
    const rule = audit.rules.find((each) => each.name === finding.rule) || {};
    body.append(element("article", { class: `finding ${finding.severity}`, id: `finding-${number}`, tabindex: "-1" },
      element("h3", {}, `${finding.severity}: ${rule.title || finding.rule} (${finding.rule})`),
      element("p", {}, finding.message),
      finding.explanation ? element("p", {}, `It may be right: ${finding.explanation}`) : null,
      rule.reason ? element("p", { class: "faint" }, `${rule.reason} (${rule.reference})`) : null,
      element("ul", {}, ...finding.evidence.map(evidence))));
  });
  const unjudged = audit.rules.filter((rule) => rule.not_judged);
  if (unjudged.length) {
    body.append(element("details", {}, element("summary", {}, `${unjudged.length} rules could not be judged`),
      table(["rule", "why not"], unjudged.map((rule) => [rule.name, rule.not_judged]))));
  }
  body.append(...problems(audit.problems));
}

// ---- world switches --------------------------------------------------------

function trace() {
  const shown = data.trace;
  if (!shown) return;
  $("trace").hidden = $("trace-link").hidden = false;
  const body = $("trace-body"), stat = shown.statistics, { words, rows } = shown.exits;
  body.append(element("p", {}, `${shown.file}: ${stat.exceptions} exceptions taken to EL2, ${stat.world_switches} world switches, ` +
    `${stat.cpus} CPUs, ${stat.dropped} events missing`));
  const lanes = element("canvas", { id: "timeline", tabindex: "0", role: "application",
    "aria-label": "Who was interrupted when, a lane for each CPU. Arrow keys move, plus and minus zoom." });
  const said = element("p", { role: "status" });
  body.append(lanes, said);
  const cpus = [...new Set(rows.map((row) => row[0]))].sort((a, b) => a - b);
  const all = rows.length ? rows[rows.length - 1][1] || 1 : 1;
  let from = 0, span = all;
  const paint = () => {
    const [context, width, height] = prepared(lanes), lane = height / Math.max(1, cpus.length);
    const last = new Map();
    let inside = 0;
    for (const [cpu, time, world] of rows) {
      const before = last.get(cpu) ?? 0;
      last.set(cpu, time);
      if (time < from || before > from + span) continue;
      inside += 1;
      const left = (Math.max(before, from) - from) / span * width, right = (Math.min(time, from + span) - from) / span * width;
      context.fillStyle = colour(WORLDS[words[world].split(" ")[0]] || "--none");
      context.fillRect(left, cpus.indexOf(cpu) * lane + 3, Math.max(1, right - left - 0.5), lane - 6);
    }
    context.fillStyle = colour("--ink");
    context.font = "12px system-ui, sans-serif";
    cpus.forEach((cpu, at) => context.fillText(`CPU ${cpu}`, 4, at * lane + 15));
    const unit = shown.clock ? `${(span / 1e6).toFixed(3)} ms` : `${Math.round(span)} events`;
    said.textContent = `${inside} exits in view, over ${unit}: green the host, blue a guest, orange the hypervisor` +
      (shown.left_out ? `; ${shown.left_out} older ones are only in the statistics` : "");
  };
  const move = (part) => { from = Math.max(0, Math.min(all - span, from + part * span)); paint(); };
  const scale = (factor) => { const middle = from + span / 2; span = Math.min(all, Math.max(1, span * factor)); from = Math.max(0, Math.min(all - span, middle - span / 2)); paint(); };
  lanes.addEventListener("wheel", (event) => { event.preventDefault(); if (event.shiftKey) move(Math.sign(event.deltaY) * 0.15); else scale(event.deltaY > 0 ? 1.25 : 0.8); }, { passive: false });
  lanes.addEventListener("keydown", (event) => {
    const action = { "+": () => scale(0.5), "=": () => scale(0.5), "-": () => scale(2), ArrowLeft: () => move(-0.2), ArrowRight: () => move(0.2), Home: () => scale(1e9) }[event.key];
    if (action) { event.preventDefault(); action(); }
  });
  new ResizeObserver(paint).observe(lanes);
  repaint.push(paint);
  const world = (row) => row.vmid === null ? row.world : `${row.world} ${row.vmid}`;
  const time = (value) => value === null || value === undefined ? "" : `${(value / 1000).toFixed(1)} µs`;
  body.append(table(["world", "EC", "exit", "count", "share", "avg", "p99", "max"], stat.exits.map((row) => [
    world(row), row.ec === null ? "" : hex(row.ec), row.name, String(row.count), `${(100 * row.share).toFixed(1)} %`,
    time(row.avg_ns), time(row.p99_ns), time(row.max_ns)]), [3, 4, 5, 6, 7]));
  body.append(...problems(stat.notes));
}

// ---- the page --------------------------------------------------------------

const repaint = [draw, legend];
function theme() {
  const root = document.documentElement, button = $("theme");
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const label = () => { button.textContent = dark() ? "Light" : "Dark"; button.setAttribute("aria-pressed", String(dark())); };
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; label(); repaint.forEach((paint) => paint()); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { label(); repaint.forEach((paint) => paint()); });
  label();
}

machine();
vms();
maps();
legend();
findings();
trace();
theme();
document.documentElement.dataset.ready = "yes";
