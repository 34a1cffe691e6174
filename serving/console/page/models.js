// The models' table: a row each, kept while the page is open, so that only figures change.

import {announce, by, el, mark, say} from "./dom.js";
import {count, dollars, percent, rate, seconds, verdict} from "./format.js";
import {Spark} from "./charts.js";

const STATES = {
  serving: "serving", starting: "starting", asleep: "at zero", down: "down", failed: "failed", unknown: "not known",
};
const SHORT = {same_model_hosted: "hosted", cheapest_proprietary: "cheapest", frontier: "frontier"};
const COLUMNS = [
  ["Model", "name"], ["Replicas", "replicas"], ["In flight", "flight"], ["Requests/s", "requests"],
  ["Tokens/s", "tokens"], ["TTFT p50", "ttft"], ["TPOT p50", "tpot"], ["Busy", "busy"], ["Cost/h", "rate"],
  ["Cost/request", "each"], ["Against APIs", "saved"],
];
const ROOM = 150; // ticks that curves show
const rows = new Map(), before = new Map();
let body = null;
export const history = new Map();

export function remember(trace) {
  for (const [name, [tokens, ttft, flight, usd]] of Object.entries(trace.models)) {
    if (!history.has(name)) history.set(name, []);
    const kept = history.get(name);
    kept.push({tokens, ttft, flight, usd});
    if (kept.length > ROOM) kept.shift();
  }
}

function table() {
  body = el("tbody", {role: "rowgroup"});
  by("models-table").append(el("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": "Models, table"},
    el("table", {class: "cards models", role: "table"}, // the roles stay where a narrow page makes cards of the rows
      el("caption", {class: "unseen"}, "Models: state, load, speed against the SLO, and cost"),
      el("thead", {role: "rowgroup"}, el("tr", {role: "row"},
        COLUMNS.map(([label]) => el("th", {scope: "col", role: "columnheader"}, label)))), body)));
}

function row(model) {
  if (body === null) table();
  const cells = {}, notes = {};
  const made = COLUMNS.map(([label, name]) => {
    cells[name] = el("span", {class: "figure"});
    notes[name] = el("small");
    const inner = [cells[name], notes[name]];
    return name === "name" ? el("th", {scope: "row", role: "rowheader"}, inner)
      : el("td", {role: "cell", "data-label": label}, inner);
  });
  const state = el("span", {class: "state"}), tokens = new Spark(), ttft = new Spark();
  cells.name.after(state);
  cells.tokens.after(tokens.node);
  cells.ttft.after(ttft.node);
  body.append(el("tr", {role: "row"}, made));
  return {cells, notes, state, tokens, ttft};
}

function set(of, name, text, note = "", tone = null, alarm = null) {
  say(of.cells[name], text);
  say(of.notes[name], note);
  mark(of.cells[name], "data-tone", tone);
  mark(of.notes[name], "data-tone", alarm);
}

export function models(now) {
  for (const m of now.models) {
    if (!rows.has(m.name)) rows.set(m.name, row(m));
    const r = rows.get(m.name), past = history.get(m.name) || [];
    mark(r.state, "data-state", m.state);
    say(r.state, STATES[m.state]);
    set(r, "name", m.name, [m.why, m.noise ? "random weights: its text is noise" : ""].filter(Boolean).join("; "));
    set(r, "replicas", count(m.replicas), m.starting ? `${m.starting} starting` : "", m.replicas ? null : "soft");
    set(r, "flight", count(m.in_flight), m.queued ? `${count(m.queued)} queued` : "");
    set(r, "requests", rate(m.requests_per_s), m.errors_per_s ? `${rate(m.errors_per_s)} errors/s` : "", null,
      m.errors_per_s ? "bad" : null);
    set(r, "tokens", rate(m.tokens_per_s));
    set(r, "ttft", seconds(m.ttft_p50_s), `p95 ${seconds(m.ttft_p95_s)}\nSLO ${seconds(m.ttft_slo_s)}`,
      m.ttft_p50_s === null ? null : m.late ? "bad" : "good");
    set(r, "tpot", seconds(m.tpot_p50_s), `SLO ${seconds(m.tpot_slo_s)}`,
      m.tpot_p50_s === null ? null : m.tpot_p50_s > m.tpot_slo_s ? "bad" : "good");
    set(r, "busy", m.busy === null ? "–" : percent(m.busy));
    set(r, "rate", dollars(m.usd_per_hour));
    set(r, "each", dollars(m.usd_per_request));
    set(r, "saved", m.compared.length ? "" : "–");
    r.notes.saved.replaceChildren(...m.compared.map((c) => el("span", {class: "line", title: c.name,
      "data-tone": c.saving === null ? "" : c.saving >= 0 ? "good" : "bad"},
    `${verdict(c.saving)} · ${SHORT[c.role] || c.role}`)));
    r.tokens.draw(past.map((p) => p.tokens), ROOM);
    r.ttft.draw(past.map((p) => p.ttft), ROOM, m.ttft_slo_s);
    tell(m);
  }
  say(by("models-hint"), `Rates and medians over the newest ${Math.round(now.window_s)} s; curves over the newest `
    + `${Math.round(ROOM * now.every_s / 60)} minutes, the line across a TTFT curve is its SLO.`);
}

function tell(m) {
  const was = before.get(m.name);
  if (was !== undefined && was !== m.state) announce(`${m.name} is ${STATES[m.state]} now. ${m.why}`);
  before.set(m.name, m.state);
}
