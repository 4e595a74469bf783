"use strict";
// Everything that comes from the run is put on the page as text nodes and attributes, never as markup.
const SVG = "http://www.w3.org/2000/svg";
const run = { info: null, all: new Map(), log: [], settled: 0, event: 0, chosen: null, follows: true, details: new Map(), tab: "diff", clock: 0 };
const at = (id) => document.getElementById(id);

function made(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "paint") for (const [key, each] of Object.entries(value)) node.style.setProperty(key, each);
    else node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((each) => each !== null && each !== undefined && each !== ""));
  return node;
}
const h = (tag, attributes, ...children) => made(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => made(document.createElementNS(SVG, tag), attributes, children);
const fill = (id, ...children) => at(id).replaceChildren(...children.flat(Infinity).filter(Boolean));

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const score = (value) => (isNumber(value) ? value.toFixed(4) : "–");
const plain = (value) => (isNumber(value) ? Number(value.toPrecision(5)).toLocaleString("en-US", { maximumFractionDigits: 6 }) : "–");
const percent = (value, digits = 1) => `${value >= 0 ? "+" : "−"}${Math.abs(100 * value).toFixed(digits)} %`;
function lasting(seconds) {
  if (!isNumber(seconds)) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 129600 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} d`;
}

// what follows from the candidates

const told = () => [...run.all.values()];
const isStart = (each) => each.proposer === "start";
const isWhole = (each) => (each.status === "scored" || each.status === "archived") && isNumber(each.score) && !each.reason;
const starts = () => told().filter((each) => isStart(each) && isNumber(each.score));
const bestStart = () => starts().reduce((best, each) => (best && best.score >= each.score ? best : each), null);
function best() {
  const named = run.info && run.all.get(run.info.best);
  if (named) return named;
  const [a, b] = (run.info && run.info.trials) || [1, 1];
  const merit = (each) => (each.score * a + each.validation * b) / (a + b);
  return told().filter((each) => isWhole(each) && isNumber(each.validation)).reduce((top, each) => (top && merit(top) >= merit(each) ? top : each), null);
}
function line(each) {
  const path = [];
  for (const seen = new Set(); each && !seen.has(each.number); each = run.all.get(each.parents[0])) { seen.add(each.number); path.unshift(each); }
  return path;
}
function colour(name) {
  if (name === "start") return "var(--start)";
  const known = (run.info && run.info.proposers) || [];
  const others = [...new Set(told().map((each) => each.proposer))].filter((each) => each !== "start" && !known.includes(each)).sort();
  return `var(--c${[...known, ...others].indexOf(name) % 8})`;
}
const called = (each) => (isStart(each) ? each.note || "start" : each.note);

// the parts of the page

function drawHeader() {
  const info = run.info;
  at("title").textContent = info.title || info.study;
  at("about").textContent = `Study ${info.study} · ${info.path} · archive ${info.archive} · jail ${info.jail}`;
  const top = best();
  document.title = `${top ? score(top.score) + " · " : ""}${info.study} · cloudchamber`;
  const last = run.log.length ? run.log[run.log.length - 1].at_s : null;
  const pill = at("pill");
  pill.className = info.is_running ? "pill live" : "pill";
  pill.textContent = info.is_running ? "running" : last === null ? "not running" : `not running, last seen ${lasting(run.clock - last)} ago`;
}

function tile(name, value, note, share, kind) {
  const meter = isNumber(share) ? h("div", { class: "meter" }, h("i", { paint: { width: `${Math.min(100, 100 * share)}%` } })) : null;
  return h("div", { class: `tile ${kind || ""}` }, h("span", null, name), h("b", null, value), h("span", null, ...[note].flat()), meter);
}

function drawTiles() {
  const info = run.info, budget = info.budget || {}, top = best(), first = bestStart(), all = told().filter((each) => !isStart(each));
  const valid = all.filter((each) => isNumber(each.score)).length, lost = all.length - valid;
  const gain = top && first ? top.score / first.score - 1 : null;
  const since = gain === null ? "nothing scored yet" : gain > 0 ? [h("b", { class: "up" }, percent(gain, 2)), ` over ${first.note}`] : `the start, ${first.note}`;
  const closed = info.has_bound && top && first && first.score < 1 ? (top.score - first.score) / (1 - first.score) : null;
  const money = info.usd > 0 || budget.usd ? `${info.usd.toFixed(2)} USD${budget.usd ? ` of ${budget.usd}` : ""}` : "no model asked";
  const shares = [budget.usd && info.usd / budget.usd, budget.tokens && info.tokens / budget.tokens].filter(isNumber);
  fill("tiles",
    tile("best training score", top ? score(top.score) : "–", since, null, "main"),
    info.has_bound ? tile("left to the bound", top ? `${(100 * (1 - top.score)).toFixed(1)} %` : "–", closed === null ? "1 is the bound" : `${(100 * closed).toFixed(1)} % of the gap closed`, closed)
      : tile(`mean ${info.objective || "objective"}`, top ? plain(top.objective) : "–", info.unit || ""),
    tile("evaluations", `${info.evaluations}${budget.evaluations ? ` / ${budget.evaluations}` : ""}`, `${all.length} candidates told`, budget.evaluations ? info.evaluations / budget.evaluations : null),
    tile("valid", all.length ? `${Math.round((100 * valid) / all.length)} %` : "–", `${lost} void or rejected`),
    tile("spend", info.tokens ? `${info.tokens.toLocaleString("en-US")} tokens` : lasting(info.wall_s), info.tokens ? `${money}, ${lasting(info.wall_s)}` : money, shares.length ? Math.max(...shares) : null));
}

function drawVerdict() {
  const found = Array.isArray(run.info.verdict) ? run.info.verdict : run.info.verdict ? [run.info.verdict] : [];
  at("verdict").hidden = !found.length;
  if (!found.length) return;
  const times = run.info.verdicts > 1 ? ` The held-out trials were met ${run.info.verdicts} times.` : "";
  fill("verdict", h("h2", null, "Held-out verdict"),
    h("p", { class: "soft" }, `Trials nobody had seen; gain in quality with its 95 % interval, paired.${times}`), found.map(verdictRow));
}

function verdictRow(each) {
  const isGain = !each.void && each.low > 0, isKnown = isNumber(each.low) && isNumber(each.high);
  const words = each.void ? `void: ${each.void}` : isGain ? "an improvement" : "no improvement shown";
  const text = h("div", null, h("b", { class: isGain ? "up" : "" }, isKnown ? percent(each.gain) : "void"), ` against ${each.baseline}: ${words}`,
    h("div", { class: "soft" }, `candidate ${each.candidate}, ${plain(each.objective)} against ${plain(each.baseline_objective)} ${run.info.unit || ""}, ${each.trials} trials`));
  if (!isKnown) return h("div", { class: "verdict" }, text);
  const width = 400, low = Math.min(0, each.low), high = Math.max(0, each.high), pad = (high - low || 1) * 0.15;
  const x = (value) => ((value - low + pad) / (high - low + 2 * pad)) * width;
  return h("div", { class: "verdict" }, text, s("svg", { viewBox: `0 0 ${width} 44`, width: "100%", role: "img", "aria-label": "interval of the gain" },
    s("line", { x1: x(0), x2: x(0), y1: 2, y2: 28, class: "base" }), s("text", { x: x(0), y: 41, "text-anchor": "middle" }, "0"),
    s("line", { x1: x(each.low), x2: x(each.high), y1: 15, y2: 15, stroke: "var(--mark)", "stroke-width": 4, "stroke-linecap": "round" }),
    s("circle", { cx: x(each.gain), cy: 15, r: 6, fill: "var(--mark)" }),
    s("text", { x: x(each.low), y: 41, "text-anchor": "middle" }, percent(each.low)), s("text", { x: x(each.high), y: 41, "text-anchor": "middle" }, percent(each.high))));
}

function steps(low, high, wanted) {
  const raw = (high - low) / wanted || 1, size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((each) => each * size).find((each) => each >= raw) || size, found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + 1e-12; value += step) found.push(value);
  return { found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

function drawProgress() {
  const place = at("progress"), width = Math.max(260, place.clientWidth), height = width < 500 ? 230 : 290, pad = { l: 46, r: 14, t: 16, b: 40 };
  const all = told(), scored = all.filter((each) => isNumber(each.score)), first = bestStart();
  if (!scored.length) return fill("progress", h("p", { class: "soft" }, "Nothing is scored yet."));
  const values = scored.map((each) => each.score).sort((a, b) => a - b), most = values[values.length - 1];
  let low = Math.min(first ? first.score : Infinity, values[Math.floor(values.length * 0.12)]);
  const shows = run.info.has_bound && 1 - most <= 3 * Math.max(most - low, 1e-6);
  let high = shows ? Math.max(1, most) : most;
  const span = Math.max(high - low, 0.002 * Math.abs(high) || 1e-3);
  low -= 0.08 * span; high += 0.08 * span;
  const last = Math.max(...all.map((each) => each.number), 2), rail = height - pad.b + 12;
  const x = (number) => pad.l + ((number - 1) / (last - 1)) * (width - pad.l - pad.r);
  const y = (value) => height - pad.b - ((Math.max(value, low) - low) / (high - low)) * (height - pad.t - pad.b);
  const ticks = steps(low, high, 5), marks = [];
  for (const value of ticks.found) marks.push(s("line", { x1: pad.l, x2: width - pad.r, y1: y(value), y2: y(value), class: "grid" }), s("text", { x: pad.l - 6, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(ticks.digits)));
  for (const value of steps(1, last, width < 500 ? 4 : 8).found) if (Number.isInteger(value) && value > 0) marks.push(s("text", { x: x(value), y: height - 5, "text-anchor": "middle" }, String(value)));
  const every = Math.ceil(all.length / 4000);
  for (const each of all) {
    if (isNumber(each.score) || each.status === "told") continue;
    if (each.number % every === 0) marks.push(s("line", { x1: x(each.number), x2: x(each.number), y1: rail - 4, y2: rail + 4, class: each.status === "void" ? "void" : "rejected" }));
  }
  for (const each of scored) {
    if (each.number % every !== 0 && each.status !== "archived") continue;
    const whole = isWhole(each), paint = colour(each.proposer);
    marks.push(s("circle", { cx: x(each.number), cy: y(each.score), r: each.status === "archived" ? 3.6 : 2.6, fill: whole ? paint : "none", stroke: paint, "stroke-width": whole ? 0 : 1, opacity: each.status === "archived" ? 0.95 : 0.45 }));
  }
  let path = "", level = -Infinity;
  for (const each of scored.filter(isWhole)) if (each.score > level) {
    path += path ? `H${x(each.number)}V${y(each.score)}` : `M${x(each.number)} ${y(each.score)}`;
    level = each.score;
  }
  if (path) marks.push(s("path", { d: `${path}H${x(last)}`, class: "best" }));
  if (first) marks.push(s("line", { x1: pad.l, x2: width - pad.r, y1: y(first.score), y2: y(first.score), class: "base" }), s("text", { x: width - pad.r, y: y(first.score) + 14, "text-anchor": "end", class: "halo" }, `best start: ${first.note} ${score(first.score)}`));
  if (shows) marks.push(s("line", { x1: pad.l, x2: width - pad.r, y1: y(1), y2: y(1), class: "bound" }), s("text", { x: pad.l + 4, y: y(1) + 14, class: "strong halo" }, "bound"));
  else if (run.info.has_bound) marks.push(s("text", { x: pad.l + 4, y: pad.t - 3, class: "strong halo" }, "↑ bound at 1"));
  const top = best(), chosen = run.all.get(run.chosen);
  if (top) marks.push(s("circle", { cx: x(top.number), cy: y(top.score), r: 6.5, class: "ring", stroke: "var(--mark)" }));
  if (chosen && chosen !== top && isNumber(chosen.score)) marks.push(s("circle", { cx: x(chosen.number), cy: y(chosen.score), r: 6.5, class: "ring" }));
  const picture = s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Training score of every candidate, and the best so far" }, marks);
  const near = (event) => {
    const box = picture.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
    let found = null, least = 900;
    for (const each of all) {
      const distance = (x(each.number) - px) ** 2 + ((isNumber(each.score) ? y(each.score) : rail) - py) ** 2;
      if (distance < least) { least = distance; found = each; }
    }
    return found;
  };
  picture.addEventListener("pointermove", (event) => { const found = near(event); picture.style.cursor = found ? "pointer" : ""; if (found) tip(found, event); else at("tip").hidden = true; });
  picture.addEventListener("pointerleave", () => { at("tip").hidden = true; });
  picture.addEventListener("click", (event) => { const found = near(event); if (found) choose(found.number); });
  fill("progress", picture);
  const dot = (name, paint) => h("span", null, h("i", { paint: { background: paint } }), name);
  const names = [...new Set(all.map((each) => each.proposer))].sort((a, b) => (a === "start" ? -1 : b === "start" ? 1 : a.localeCompare(b)));
  fill("legend", names.map((name) => dot(name, colour(name))), h("span", null, "○ stopped early"), h("span", null, "| void or rejected"));
}

function tip(each, event) {
  const box = at("tip");
  box.replaceChildren(h("b", null, `${each.number} `), isNumber(each.score) ? score(each.score) : each.status, h("div", { class: "soft" }, `${each.proposer}${each.note ? `: ${each.note}` : ""}`), each.status === "void" ? h("div", { class: "soft" }, each.reason.slice(0, 160)) : "");
  box.hidden = false;
  box.style.left = `${Math.max(8, Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8))}px`;
  box.style.top = `${event.clientY + 16 + box.offsetHeight > innerHeight ? event.clientY - box.offsetHeight - 10 : event.clientY + 16}px`;
}

function family() {
  const top = best(), kept = told().filter((each) => each.status === "archived").sort((a, b) => b.score - a.score), shown = new Map();
  const take = (each) => { for (const one of line(each)) shown.set(one.number, one); };
  if (top) take(top);
  for (const each of kept) { if (shown.size > 120) break; take(each); }
  return shown;
}

function drawLineage() {
  const shown = family(), top = best(), trunk = new Set(top ? line(top).map((each) => each.number) : []), below = new Map(), roots = [];
  for (const each of [...shown.values()].sort((a, b) => a.number - b.number)) {
    const parent = shown.get(each.parents[0]);
    if (parent && parent !== each) below.set(parent.number, [...(below.get(parent.number) || []), each]); else roots.push(each);
  }
  if (!roots.length) return fill("lineage", h("p", { class: "soft" }, "Nothing is in the archive yet."));
  const spots = new Map();
  let row = 0, deepest = 0;
  const place = (each, depth) => {
    deepest = Math.max(deepest, depth);
    const children = (below.get(each.number) || []).sort((a, b) => trunk.has(b.number) - trunk.has(a.number) || b.score - a.score);
    const mine = row;
    children.forEach((child, i) => { if (i) row += 1; place(child, depth + 1); });
    spots.set(each.number, { depth, row: mine, each });
  };
  roots.sort((a, b) => trunk.has(b.number) - trunk.has(a.number) || b.score - a.score).forEach((root, i) => { if (i) row += 1; place(root, 0); });
  const room = Math.max(260, at("lineage").clientWidth - 14), step = Math.max(34, Math.min(96, (room - 150) / Math.max(1, deepest))), width = Math.max(room, 150 + step * deepest), height = 24 * row + 34;
  const x = (spot) => 14 + step * spot.depth, y = (spot) => 20 + 24 * spot.row, edges = [], nodes = [];
  for (const spot of spots.values()) {
    const parent = spots.get(spot.each.parents[0]);
    if (parent && parent !== spot) {
      const isTrunk = trunk.has(spot.each.number), a = x(parent), b = x(spot), d = Math.min(step, 26);
      edges.push([isTrunk, s("path", { class: `edge${isTrunk ? " main" : ""}`, d: `M${a} ${y(parent)}${y(parent) === y(spot) ? "" : `C${a + d * 0.6} ${y(parent)} ${a} ${y(spot)} ${a + d} ${y(spot)}`}L${b} ${y(spot)}` })]);
    }
    const each = spot.each, isEnd = !below.has(each.number), isTop = top && each.number === top.number;
    const label = isStart(each) ? `${called(each)} ${score(each.score)}` : isEnd || isTop ? `${each.number}  ${score(each.score)}` : "";
    nodes.push(s("g", { class: "node", onclick: () => choose(each.number), onpointermove: (event) => tip(each, event), onpointerleave: () => { at("tip").hidden = true; } },
      s("circle", { cx: x(spot), cy: y(spot), r: 11, fill: "transparent" }),
      s("circle", { cx: x(spot), cy: y(spot), r: isTop ? 6.5 : 4.6, fill: colour(each.proposer) }),
      each.number === run.chosen ? s("circle", { cx: x(spot), cy: y(spot), r: 8.5, class: "ring" }) : null,
      label ? s("text", { x: x(spot) + (isEnd ? 11 : -2), y: y(spot) + (isEnd ? 4 : -9), class: `halo${isTop ? " strong" : ""}` }, label.slice(0, 40)) : null));
  }
  edges.sort((a, b) => a[0] - b[0]);
  fill("lineage", s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Which candidate came of which" }, edges.map((each) => each[1]), nodes));
}

function drawHeat() {
  const kept = told().filter((each) => each.status === "archived").sort((a, b) => b.score - a.score), top = best();
  const names = [...new Set(kept.flatMap((each) => Object.keys(each.scores)))];
  if (!names.length) return fill("heat", h("p", { class: "soft" }, "Nothing is in the archive yet."));
  const rows = [...new Set([...(top ? [top] : []), ...kept.slice(0, 11), ...(bestStart() ? [bestStart()] : [])])];
  const range = new Map(names.map((name) => { const values = rows.map((each) => each.scores[name]).filter(isNumber); return [name, [Math.min(...values), Math.max(...values)]]; }));
  const cell = (each, name) => {
    const value = each.scores[name], [low, high] = range.get(name);
    if (!isNumber(value)) return h("td", { class: "n" }, "–");
    const share = high > low ? Math.round(8 + (82 * (value - low)) / (high - low)) : 45;
    return h("td", { class: "n", paint: { background: `color-mix(in srgb, var(--mark) ${share}%, var(--paper))`, color: share > 52 ? "var(--paper)" : "var(--ink)" } }, score(value));
  };
  fill("heat", h("table", { class: "heat" }, h("thead", null, h("tr", null, h("th", null, "candidate"), names.map((name) => h("th", { class: "n" }, name)))),
    h("tbody", null, rows.map((each) => h("tr", { class: each.number === run.chosen ? "chosen" : "" },
      h("td", null, h("button", { class: "link", onclick: () => choose(each.number) }, isStart(each) ? called(each) : String(each.number)), each === top ? h("span", { class: "soft" }, " best") : ""), names.map((name) => cell(each, name)))))));
}

function drawProposers() {
  const rows = new Map();
  let level = bestStart() ? bestStart().score : -Infinity;
  for (const each of told()) {
    if (isStart(each)) continue;
    const row = rows.get(each.proposer) || { told: 0, valid: 0, kept: 0, records: 0 };
    row.told += 1;
    row.valid += isNumber(each.score) ? 1 : 0;
    row.kept += each.status === "archived" ? 1 : 0;
    if (isWhole(each) && each.score > level) { level = each.score; row.records += 1; }
    rows.set(each.proposer, row);
  }
  if (!rows.size) return fill("proposers", h("p", { class: "soft" }, "Nothing was proposed yet."));
  fill("proposers", h("table", null, h("thead", null, h("tr", null, h("th", null, ""), ["told", "valid", "kept", "records"].map((name) => h("th", { class: "n" }, name)))),
    h("tbody", null, [...rows].sort((a, b) => b[1].records - a[1].records || b[1].told - a[1].told).map(([name, row]) => h("tr", null,
      h("td", null, h("i", { class: "dot", paint: { background: colour(name) } }), name), [row.told, row.valid, row.kept, row.records].map((value) => h("td", { class: "n" }, String(value))))))),
    h("p", { class: "soft" }, "Kept: entered the archive. Record: better than all before it."));
}

function drawVoids() {
  const bad = told().filter((each) => each.status === "void" || each.status === "rejected"), counts = new Map();
  if (!bad.length) return fill("voids", h("p", { class: "soft" }, "None so far."));
  for (const each of bad) {
    const kind = (each.status === "rejected" ? "rejected: " : "") + each.reason.replace(/\d+(\.\d+)?(e[+-]?\d+)?/g, "#").slice(0, 110);
    counts.set(kind, (counts.get(kind) || 0) + 1);
  }
  const rows = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 7), most = rows[0][1];
  fill("voids", h("ul", { class: "bars" }, rows.map(([kind, count]) => h("li", null, h("b", { class: "n" }, String(count)), h("div", null, h("span", null, kind || "no reason given"), h("div", { class: "meter" }, h("i", { paint: { width: `${(100 * count) / most}%` } })))))),
    h("h3", null, "the last ones"), h("ul", { class: "bars" }, bad.slice(-4).reverse().map((each) => h("li", null, h("button", { class: "link", onclick: () => choose(each.number) }, String(each.number)), h("span", { class: "soft" }, each.reason)))));
}

function drawLog() {
  fill("log", run.log.slice(-200).reverse().map((each) => h("li", null, h("time", { title: new Date(1000 * each.at_s).toISOString() }, `${lasting(Math.max(0, run.clock - each.at_s))}`), h("em", { class: each.kind }, each.kind), h("span", null, each.text))));
}

// the inspector

function code(rows) {
  return h("div", { class: "code", tabindex: 0 }, h("div", null, rows));
}
function sourceView(text) {
  return code(text.replace(/\n$/, "").split("\n").map((each, i) => h("div", { class: "line" }, h("span", null, String(i + 1)), h("span", null, each))));
}
function diffView(rows) {
  const kinds = { "+": "line plus", "-": "line minus", " ": "line" };
  return code(rows.map(([sign, old, now, text]) => sign === "@" ? h("div", { class: "line gap" }, text) : h("div", { class: kinds[sign] }, h("span", null, String(now || old)), h("span", null, `${sign} ${text}`))));
}

function drawInspector() {
  const each = run.all.get(run.chosen);
  if (!each) return fill("inspector", h("h2", null, "Candidate"), h("p", { class: "soft" }, "Choose one in a picture."));
  const more = run.details.get(each.number), top = best(), isTop = top && top.number === each.number;
  const parents = each.parents.length ? h("dd", null, each.parents.map((number, i) => [i ? ", " : "", h("button", { class: "link", onclick: () => choose(number) }, String(number))])) : h("dd", null, "none");
  const facts = [["training score", score(each.score)]];
  if (isNumber(each.objective)) facts.push([run.info.objective || "objective", `${plain(each.objective)} ${run.info.unit || ""}`]);
  if (isNumber(each.validation)) facts.push(["hidden trials", score(each.validation)]);
  facts.push(["proposer", each.proposer]);
  if (each.note) facts.push([isStart(each) ? "policy" : "change", each.note]);
  if (each.reason) facts.push(["reason", each.reason]);
  const tabs = [["diff", "Change"], ["source", "Source"], ["feedback", "Feedback"]].filter(([name]) => name !== "diff" || each.parents.length);
  const tab = tabs.some(([name]) => name === run.tab) ? run.tab : "source";
  let body = h("p", { class: "soft" }, "…");
  if (more) {
    if (tab === "source") body = sourceView(more.source);
    else if (tab === "diff") body = more.diff && more.diff.length ? diffView(more.diff) : h("p", { class: "soft" }, "The text is the same as its parent's.");
    else body = more.feedback || more.reason ? h("pre", { class: "words mono" }, more.feedback || more.reason) : h("p", { class: "soft" }, "There is no feedback.");
  }
  const path = line(each);
  const before = at("inspector").querySelector(".code"), spot = before ? [before.scrollLeft, before.scrollTop, before.dataset.key] : null;
  fill("inspector",
    h("div", { class: "head" }, h("h2", null, `Candidate ${each.number}`), h("span", { class: `status ${each.status}` }, each.status === "archived" ? "kept" : each.status), isTop ? h("span", { class: "status is-best" }, "best") : "", h("span", { class: "spacer" }),
      run.follows || isTop || !top ? "" : h("button", { class: "link", onclick: () => { run.follows = true; history.replaceState(null, "", location.pathname); draw(); } }, "show the best")),
    h("dl", { class: "facts" }, facts.map(([name, value]) => [h("dt", null, name), h("dd", null, value)]), h("dt", null, "parents"), parents),
    h("div", { class: "tabs", role: "tablist" }, tabs.map(([name, text]) => h("button", { role: "tab", "aria-selected": String(name === tab), onclick: () => { run.tab = name; drawInspector(); } }, text))),
    body,
    path.length > 1 ? h("h3", null, "how it came about") : "",
    path.length > 1 ? h("ol", { class: "path" }, path.map((one) => h("li", null, h("button", { class: "link", onclick: () => choose(one.number) }, String(one.number)), h("span", { class: "n" }, score(one.score)), h("span", null, called(one) || one.proposer)))) : "");
  const after = at("inspector").querySelector(".code"), key = `${each.number} ${tab}`;
  if (after) { after.dataset.key = key; if (spot && spot[2] === key) after.scrollTo(spot[0], spot[1]); }
  if (!more) look(each.number);
}

async function look(number) {
  if (run.details.has(number)) return;
  run.details.set(number, null);
  try {
    const answer = await fetch(`candidate/${number}`);
    if (!answer.ok) throw new Error(String(answer.status));
    run.details.set(number, await answer.json());
    if (run.chosen === number) drawInspector();
  } catch (error) {
    run.details.delete(number);
  }
}

function choose(number) {
  run.chosen = number;
  run.follows = false;
  history.replaceState(null, "", `#${number}`);
  draw();
}

// news

let isWaiting = false;
function draw() {
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => {
    isWaiting = false;
    if (!run.info) return;
    const top = best();
    if (run.follows || !run.all.has(run.chosen)) run.chosen = top ? top.number : run.all.size ? run.all.keys().next().value : null;
    for (const part of [drawHeader, drawTiles, drawVerdict, drawProgress, drawLineage, drawHeat, drawProposers, drawVoids, drawLog, drawInspector]) part();
    document.body.dataset.candidates = String(run.all.size);
  });
}

function take(news) {
  run.info = news.run;
  run.clock = news.now_s;
  for (const each of news.candidates) { run.all.set(each.number, each); if (each.status !== "told" && run.details.get(each.number) && run.details.get(each.number).status === "told") run.details.delete(each.number); }
  const last = run.log.length ? run.log[run.log.length - 1].id : 0;
  run.log.push(...news.events.filter((each) => each.id > last));
  run.log = run.log.slice(-400);
  run.settled = news.settled;
  run.event = news.event;
  draw();
}

function listen() {
  const source = new EventSource(`stream?after=${run.settled}.${run.event}`);
  source.addEventListener("message", (message) => take(JSON.parse(message.data)));
  source.addEventListener("error", () => {
    at("pill").className = "pill lost";
    at("pill").textContent = "connection lost";
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  });
}

async function begin() {
  const wanted = Number(location.hash.slice(1));
  history.replaceState(null, "", location.pathname + location.hash);  // the token leaves the address bar; the cookie stays
  if (Number.isInteger(wanted) && wanted > 0) { run.chosen = wanted; run.follows = false; }
  take(await (await fetch("state")).json());
  listen();
}
addEventListener("resize", draw);
begin();
