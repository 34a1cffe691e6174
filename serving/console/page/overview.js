// The figures of the whole fleet, one tile each.

import {by, el, mark, say} from "./dom.js";
import {DASH, ROLES, count, dollars, rate, verdict} from "./format.js";

const tiles = new Map();

function tile(name, label) {
  if (!tiles.has(name)) {
    const value = el("dd", {class: "value"}), note = el("dd", {class: "note"}), term = el("dt", {}, label);
    const box = el("div", {class: "tile"}, term, value, note);
    tiles.set(name, {box, value, note, term});
    by("tiles").append(box);
  }
  return tiles.get(name);
}

function show(name, label, value, note, tone = null) {
  const found = tile(name, label);
  say(found.value, value);
  say(found.note, note);
  mark(found.box, "data-tone", tone);
}

const sum = (models, field) => models.reduce((total, model) => total + model[field], 0);

export function overview(now) {
  const models = now.models, errors = sum(models, "errors_per_s"), late = models.filter((m) => m.late);
  const serving = models.filter((m) => m.state === "serving").length;
  const over = `over ${Math.round(now.window_s)} s`;
  show("models", "Models serving", `${serving} of ${models.length}`, late.length ? `${late.length} late` : "SLO kept now",
    serving < models.filter((m) => m.state !== "asleep").length || late.length ? "bad" : "good");
  show("flight", "In flight", count(sum(models, "in_flight")), `${count(sum(models, "queued"))} wait for a seat`);
  show("requests", "Requests/s", rate(sum(models, "requests_per_s")),
    errors ? `${rate(errors)} errors/s` : `no errors ${over}`, errors ? "alarm" : null);
  show("tokens", "Output tokens/s", rate(sum(models, "tokens_per_s")), `of requests that ended, ${over}`);
  show("rate", "Cost rate", `${dollars(now.usd_per_hour)}/h`, "replicas, idle time and overhead");
  show("each", "Cost per request", dollars(now.usd_per_request), `fully loaded, ${over}`);
  for (const found of now.saved) {
    show(`saved-${found.role}`, `Against ${ROLES[found.role] || found.role}`, verdict(found.saving),
      `${found.name}, all traffic so far, overhead included`, found.saving === null ? null : found.saving >= 0 ? "good" : "bad");
  }
  const residual = now.residual_nanousd;
  const books = now.ledger_up === false ? ["away", "the ledger's database cannot be read", "bad"]
    : residual === null ? [DASH, "not added up yet", null]
      : residual === 0 ? ["add up", "costs equal the bill to the nano-dollar", "good"]
        : ["do not add up", `off by ${count(residual)} nano-USD`, "bad"];
  show("books", "The books", ...books);
}
