// What was promised to whom, what share of it was kept, and what is left of the error budget: a row each, kept while the
// page is open.

import {announce, by, el, mark, say, svg} from "./dom.js";
import {DASH, attained, count, percent, quantity, seconds} from "./format.js";

const PROMISES = {availability: "Availability", ttft: "TTFT", tpot: "TPOT", goodput: "Goodput"};
const LITTLE = 0.25; // of a budget
const rows = new Map(), broken = new Map();
let body = null;

function meter() {
  const part = svg("rect", {class: "part", height: 8});
  return {part, node: svg("svg", {class: "meter", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true"},
    svg("rect", {class: "all", width: 100, height: 8}), part)};
}

function table() {
  body = el("tbody", {role: "rowgroup"});
  by("promises-table").append(el("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": "Promises, table"},
    el("table", {class: "cards promises", role: "table"},
      el("caption", {class: "unseen"}, "Promises: the share kept, and what is left of the error budget"),
      el("thead", {role: "rowgroup"}, el("tr", {role: "row"}, ["Model", ...Object.values(PROMISES)].map((label) =>
        el("th", {scope: "col", role: "columnheader"}, label)))), body)));
}

function row(each) {
  if (body === null) table();
  const cells = each.promises.map(() => ({share: el("span", {class: "figure"}), bar: meter(), note: el("small")}));
  body.append(el("tr", {role: "row"},
    el("th", {scope: "row", role: "rowheader"}, each.model, el("small", {}, `to ${each.tenant || "everyone"}`)),
    cells.map((cell, at) => el("td", {role: "cell", "data-label": PROMISES[each.promises[at].promise]},
      cell.share, cell.bar.node, cell.note))));
  return cells;
}

function left(kept) {
  if (kept.left > 0) return `${percent(kept.left)} of its budget left`;
  return kept.left === 0 ? "its budget is used up" : `${quantity(1 - kept.left)}× its budget is used`;
}

function show(cell, kept) {
  const promise = `promised ${attained(kept.objective)}${kept.at_most_s === null ? "" : ` within ${seconds(kept.at_most_s)}`}`;
  const none = kept.left === null, tone = none ? null : kept.left <= 0 ? "bad" : kept.left < LITTLE ? "warn" : "good";
  say(cell.share, none ? DASH : attained(kept.share));
  mark(cell.share, "data-tone", tone === "good" ? null : tone);
  mark(cell.bar.node, "data-tone", tone);
  cell.bar.node.classList.toggle("none", none);
  mark(cell.bar.part, "width", none ? "0" : Math.max(0, Math.min(1, kept.left)) * 100);
  say(cell.note, none ? `${promise}\nno request yet`
    : `${promise}\n${left(kept)}\n${count(kept.missed)} of ${count(kept.eligible)} missed`);
}

function tell(name, each) {
  const over = each.promises.filter((kept) => kept.left !== null && kept.left <= 0).map((kept) => PROMISES[kept.promise]);
  const was = broken.get(name);
  if (was !== undefined && over.length > was) {
    announce(`${each.model} has used up an error budget of what it promises to ${each.tenant || "everyone"}: ${over.join(", ")}.`);
  }
  broken.set(name, over.length);
  return over.length;
}

export function promises(now) {
  let over = 0;
  for (const each of now.promises) {
    const name = JSON.stringify([each.model, each.tenant]);
    if (!rows.has(name)) rows.set(name, row(each));
    each.promises.forEach((kept, at) => show(rows.get(name)[at], kept));
    over += tell(name, each);
  }
  say(by("promises-hint"), `${over === 0 ? "No error budget is" : over === 1 ? "1 error budget is" : `${over} error budgets are`}`
    + " used up. Counted since the gateways started; Prometheus counts budgets over 30 days, with alerts.");
}
