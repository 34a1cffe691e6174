// The newest requests, and one of them explained: its steps on a timeline, who shared them, what made up its cost.

import {announce, by, el, say, svg} from "./dom.js";
import {ROLES, clock, count, nano, percent, quantity, seconds, verdict} from "./format.js";
import {put, table} from "./tables.js";
import {presence, timeline} from "./timeline.js";
import {ask} from "./wire.js";

const BUCKETS = {direct: "its own steps", waste: "waste", idle: "part of idle time", cold_start: "part of cold starts"};
const PARTS = {fixed: "what a step costs anyway", token: "computing its tokens", attention: "attention", cache: "reading its cache"};
const MOST_BESIDE = 12;

async function tried(work) {
  try {
    say(by("find-wrong"), "");
    await work();
  } catch (error) {
    say(by("find-wrong"), error.message);
  }
}

async function list() {
  const asked = new URLSearchParams({model: by("find-model").value, outcome: by("find-outcome").value});
  const rows = (await (await ask(`requests?${asked}`)).json()).data;
  by("found").replaceChildren(rows.length ? table("Newest requests",
    [["Request", "text"], ["When", ""], ["Tenant", "text"], ["Model", "text"], ["Outcome", "text"], ["Tokens", ""], ["TTFT", ""],
      ["Took", ""], ["Cost", ""]],
    rows.map((r) => [el("button", {type: "button", class: "plain", onclick: () => explain(r.request_id)}, r.request_id),
      clock(r.at), r.tenant || "–", r.model || "–", `${r.outcome} ${r.code ?? ""}`,
      `${count(r.prompt)} + ${count(r.completion)}`, seconds(r.ttft_s), seconds(r.duration_s), nano(r.nanousd)]))
    : el("p", {class: "hint"}, "No such request in the ledger."));
}

function split(name, amounts, words) {
  const whole = Object.values(amounts).reduce((sum, v) => sum + v, 0);
  if (!whole) return null;
  let at = 0;
  const shown = Object.keys(words).filter((key) => amounts[key]);
  const bars = shown.map((key) => {
    const from = at;
    at += (amounts[key] / whole) * 100;
    return svg("rect", {x: from.toFixed(3), width: (at - from).toFixed(3), height: 10,
      class: `part${Object.keys(words).indexOf(key)}`});
  });
  return el("div", {class: "split"}, el("h4", {}, name),
    svg("svg", {viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true"}, bars),
    el("ul", {class: "legend"}, shown.map((key) => el("li", {},
      el("i", {class: `part${Object.keys(words).indexOf(key)}`}), `${words[key]} `,
      el("strong", {}, nano(amounts[key])), ` (${percent(amounts[key] / whole)})`))));
}

function facts(told) {
  const r = told.request, t = told.tokens;
  return [r && `${told.tenant || "no tenant"}, ${r.adapter || r.model}${r.preset ? ` as ${r.preset}` : ""}, ${r.endpoint}`,
    r && `${r.outcome} (${r.code}) after ${seconds(r.duration_s)}`,
    `prompt ${count(t.prompt)} tokens, ${count(t.cached)} cached; answer ${count(t.completion)}`].filter(Boolean).join(" · ");
}

function shared(told) {
  const others = told.beside;
  if (!told.request || !told.replicas.length) return null;
  if (!others.length) return el("p", {}, "No other request was on its replica meanwhile.");
  return el("div", {}, el("h4", {}, `Who was on the same replica meanwhile: ${count(others.length)}`
    + `${others.length >= 200 ? " or more" : ""}`),
  el("ul", {class: "beside"}, others.slice(0, MOST_BESIDE).map((other) => el("li", {},
    el("button", {type: "button", class: "plain", onclick: () => explain(other.request_id)}, other.request_id),
    el("span", {}, other.tenant), presence(told, other)))),
  others.length > MOST_BESIDE ? el("p", {class: "hint"}, `and ${count(others.length - MOST_BESIDE)} more.`) : null);
}

function steps(replica) {
  return el("div", {}, el("h4", {}, `Replica ${replica.source_id}: ${replica.model} on ${replica.variant}, `
    + `${nano(replica.price_nanousd_per_hour)} an hour, ${replica.outcome}`),
  replica.lines.length ? table(`Steps on ${replica.source_id}`,
    [["Phase", "text"], ["Steps", ""], ["Tokens", ""], ["Context", ""], ["In each step", ""], ["Time", ""], ["Its share", ""],
      ["Cost", ""]],
    replica.lines.map((line) => [line.phase, count(line.steps), count(line.tokens), quantity(Math.round(line.context * 10) / 10),
      quantity(Math.round(line.sharing * 10) / 10), seconds(line.seconds), percent(line.share), nano(line.nanousd)]))
    : el("p", {class: "hint"}, "The engine told no steps: time was shared in equal parts."));
}

function explained(told) {
  const {direct, waste, idle, cold_start} = told.nanousd; // eslint-disable-line camelcase
  return el("article", {"aria-labelledby": "explained-title"},
    el("h3", {id: "explained-title"}, `Request ${told.request_id}: ${nano(told.nanousd.loaded)}`),
    el("p", {class: "hint"}, facts(told)),
    told.noise ? el("p", {class: "hint"}, "Random weights: this cost says nothing about the real model's.") : null,
    el("p", {}, told.why),
    told.replicas.some((r) => r.lines.length) ? timeline(told) : null,
    el("div", {class: "panels"},
      split("What it cost", {direct, waste, idle, cold_start}, BUCKETS),
      split("What its own work was", told.work_parts_nanousd, PARTS)),
    told.compared.length ? el("div", {}, el("h4", {}, "The same tokens elsewhere"), table("The same tokens elsewhere",
      [["API", "text"], ["Would cost", ""], ["So it was", ""]], told.compared.map((c) => [
        [c.name, el("small", {}, ROLES[c.role] || c.role)], nano(c.nanousd), verdict(c.saving)]))) : null,
    shared(told), told.replicas.map(steps), el("p", {class: "hint"}, `Idle policy, ${told.idle_policy}.`));
}

// Shows a request. far: asked for from another part of the page.
export function explain(id, far = false) {
  return tried(async () => {
    const told = await (await ask(`requests/${encodeURIComponent(id)}`)).json();
    by("explained").replaceChildren(explained(told));
    by("find-id").value = told.request_id;
    if (far) by("explained").scrollIntoView();
    by("explained").focus({preventScroll: true});
    announce(`Request ${told.request_id} is explained below the list.`);
  });
}

export function explorer(now) {
  put(by("find-model"), now.models.map((m) => m.name), () => {
    const kept = by("find-model").value, made = document.createDocumentFragment();
    made.append(el("option", {value: ""}, "all"), ...now.models.map((m) => el("option", {selected: m.name === kept}, m.name)));
    queueMicrotask(() => tried(list));
    return made;
  });
}

by("find").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  const id = by("find-id").value.trim();
  if (id) explain(id);
  tried(list);
});
for (const name of ["find-model", "find-outcome"]) by(name).addEventListener("change", () => tried(list));
