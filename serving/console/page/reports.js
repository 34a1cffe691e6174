// Load-test reports of the machine that the fleet runs on.

import {by, el, say} from "./dom.js";
import {table} from "./tables.js";
import {ask} from "./wire.js";

let listed = false;

async function open(name) {
  try {
    const {path} = await (await ask(`reports/${encodeURIComponent(name)}`, {method: "POST"})).json();
    window.open(path, "_blank", "noopener");
  } catch (error) {
    by("reports-list").append(el("p", {class: "wrong", role: "alert"}, error.message));
  }
}

async function list() {
  try {
    const rows = (await (await ask("reports")).json()).data;
    by("reports-list").replaceChildren(rows.length ? table("Load-test reports",
      [["Report", "text"], ["Scenario", "text"], ["Verdict", "text"], ["Written", ""]],
      rows.map((r) => [el("button", {type: "button", class: "plain", onclick: () => open(r.name)}, r.name),
        r.scenario || "–", el("span", {class: "figure", "data-tone": {pass: "good", fail: "bad", invalid: "warn"}[r.verdict]},
          r.verdict ? r.verdict.toUpperCase() : "–"), new Date(r.at * 1000).toLocaleString()]))
      : el("p", {class: "hint"}, "None in the folder of reports yet; ", el("code", {}, "flotilla loadtest SCENARIO"),
        " makes one."));
  } catch (error) {
    say(by("reports-list"), error.message);
  }
}

export function reports() {
  if (listed) return;
  listed = true;
  list();
  setInterval(() => { if (!document.hidden && !by("inside").hidden) list(); }, 60_000);
}
