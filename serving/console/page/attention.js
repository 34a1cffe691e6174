// What may need someone: budgets, decisions about replicas, errors.

import {by, el, svg} from "./dom.js";
import {ago, clock, count, dollars, percent} from "./format.js";
import {explain} from "./explorer.js";
import {put, table} from "./tables.js";

const because = (reasons) => reasons.join("; ") || "–";

function bar(share, name, tone) {
  const width = Math.max(0, Math.min(1, share)) * 100;
  return svg("svg", {class: "meter", viewBox: "0 0 100 8", preserveAspectRatio: "none", role: "img", "aria-label": name,
    "data-tone": tone}, svg("rect", {class: "all", width: 100, height: 8}), svg("rect", {class: "part", width, height: 8}));
}

function budgets(now) {
  const rows = now.budgets;
  put(by("budgets"), rows.map((b) => [b.tenant, b.model, b.period, b.spent_usd, b.soft_usd, b.hard_usd]), () => {
    if (!rows.length) return el("p", {class: "hint"}, "No tenant or model has a budget.");
    return table("Budgets", [["Whose", "text"], ["Spent", ""], ["Of", ""]], rows.map((b) => {
      const whose = [b.tenant, b.model && `model ${b.model}`].filter(Boolean).join(" on ");
      const most = b.hard_usd ?? b.soft_usd, share = most ? b.spent_usd / most : 0;
      const over = b.hard_usd !== null && b.spent_usd >= b.hard_usd, past = b.soft_usd !== null && b.spent_usd >= b.soft_usd;
      return [[whose, el("small", {}, `per ${b.period}`)],
        [el("span", {class: "figure", "data-tone": over ? "bad" : past ? "warn" : null}, dollars(b.spent_usd)),
          bar(share, `${percent(share)} of the budget is used`, over ? "bad" : past ? "warn" : "good"),
          el("small", {}, over ? "used up" : past ? "soft mark passed" : percent(share))],
        [dollars(most), el("small", {}, b.hard_usd === null ? "soft mark" : b.soft_usd === null ? "" :
          `soft ${dollars(b.soft_usd)}`)]];
    }));
  });
}

function scaling(now) {
  const at = now.scaling, seen = now.decisions;
  put(by("scaling"), [at, seen], () => {
    if (!at.length) return el("p", {class: "hint"}, "No model scales by itself, or no decision has been counted yet.");
    const models = table("Replicas wanted and there", [["Model", "text"], ["Wanted", ""], ["There", ""], ["Why", "text"]],
      at.map((s) => [s.model, count(s.target),
        el("span", {class: "figure", "data-tone": s.actual === s.target ? null : "warn"}, count(s.actual)),
        because(s.reasons)]));
    const changes = seen.length ? el("ol", {class: "log"}, seen.slice(0, 12).map((d) => el("li", {},
      el("time", {}, clock(d.at)), ` ${d.model}: ${d.before} → ${d.after}`, el("small", {}, because(d.reasons)))))
      : el("p", {class: "hint"}, "No change since someone has been looking.");
    return el("div", {}, models, el("h3", {}, "Changes seen"), changes);
  });
}

function failures(now) {
  const rows = now.failures;
  put(by("failures"), rows.map((f) => f.request_id), () => {
    if (!rows.length) return el("p", {class: "hint"}, "None.");
    return el("ol", {class: "log"}, rows.map((f) => el("li", {},
      el("time", {title: clock(f.at)}, ago(f.at, now.at)), " ",
      el("span", {class: "figure", "data-tone": f.outcome === "failed" ? "bad" : "warn"}, `${f.code ?? ""} ${f.outcome}`),
      ` ${f.tenant || "no tenant"}, ${f.model || "no model"}, ${f.endpoint} `,
      el("button", {type: "button", class: "plain", onclick: () => explain(f.request_id, true)}, f.request_id))));
  });
}

export function attention(now) {
  budgets(now);
  scaling(now);
  failures(now);
}
