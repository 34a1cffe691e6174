// One request as a picture: what its caller saw, what the engine did for it, and who else was there.

import {el, svg} from "./dom.js";
import {percent, quantity, seconds} from "./format.js";

const WIDTH = 1000, LANE = 26, GAP = 8, LEFT = 0;
const PHASES = {prefill: "reads the prompt", decode: "writes the answer", recompute: "computes again"};

const rect = (x, y, width, height, kind, title) => svg("rect", {x: x.toFixed(2), y, width: Math.max(1, width).toFixed(2),
  height, class: kind}, title ? svg("title", {}, title) : null);

// Where the engine's steps begin: so that its first token meets the one that the caller saw.
function offset(request, lines) {
  const first = lines.findIndex((line) => line.phase === "decode");
  const before = lines.slice(0, first < 0 ? lines.length : first).reduce((sum, line) => sum + line.seconds, 0);
  return Math.max(0, (request?.ttft_s ?? before) - before);
}

export function timeline(told) {
  const request = told.request;
  const spans = told.replicas.map((r) => [r, offset(request, r.lines), r.lines.reduce((sum, line) => sum + line.seconds, 0)]);
  const whole = Math.max(request?.duration_s ?? 0, ...spans.map(([, at, span]) => at + span)) || 1e-9;
  const x = (s) => LEFT + (s / whole) * (WIDTH - LEFT);
  const parts = [], words = [];
  let y = 0;
  if (request) {
    const first = request.ttft_s ?? request.duration_s;
    parts.push(rect(x(0), y, x(first) - x(0), LANE, "wait", `to the first token: ${seconds(first)}`));
    parts.push(rect(x(first), y, x(request.duration_s) - x(first), LANE, "stream",
      `the rest of the answer: ${seconds(request.duration_s - first)}`));
    words.push(`The caller waited ${seconds(first)} for the first token and ${seconds(request.duration_s)} in all.`);
    y += LANE + GAP;
  }
  for (const [replica, begins] of spans) {
    let at = begins;
    for (const line of replica.lines) {
      const said = `${PHASES[line.phase] || line.phase}: ${line.steps} steps, ${seconds(line.seconds)}, shared with `
        + `${quantity(line.sharing - 1)} others on average, its share ${percent(line.share)}`;
      const share = Math.max(0, Math.min(1, line.share ?? 1)), wide = x(at + line.seconds) - x(at);
      parts.push(rect(x(at), y, wide, LANE * 1.6, `step ${line.phase}`, said));
      parts.push(rect(x(at), y + LANE * 1.6 * (1 - share), wide, LANE * 1.6 * share, `own ${line.phase}`, said));
      at += line.seconds;
      words.push(`${said}.`);
    }
    y += LANE * 1.6 + GAP;
  }
  return el("figure", {class: "timeline"},
    svg("svg", {viewBox: `0 0 ${WIDTH} ${Math.max(1, y - GAP)}`, preserveAspectRatio: "none", role: "img",
      "aria-labelledby": "time-title time-desc"},
    svg("title", {id: "time-title"}, "The request over time"), svg("desc", {id: "time-desc"}, words.join(" ")), parts),
    el("p", {class: "scale", "aria-hidden": "true"}, el("span", {}, "0"), el("span", {}, seconds(whole / 2)),
      el("span", {}, seconds(whole))),
    el("figcaption", {}, el("ul", {class: "legend"},
      request ? [el("li", {}, el("i", {class: "wait"}), "caller waits for the first token"),
        el("li", {}, el("i", {class: "stream"}), "answer streams")] : [],
      [...new Set(told.replicas.flatMap((r) => r.lines.map((line) => line.phase)))].map((phase) =>
        el("li", {}, el("i", {class: phase}), `engine ${PHASES[phase] || phase}`)),
      el("li", {}, "filled: its own share of each step's cost; pale: the others'")),
    el("p", {class: "hint"}, "Engine steps stand in their order, from where their first token meets the caller's: when each "
      + "began is not kept.")));
}

// When another request was there, on the same scale.
export function presence(told, other) {
  const request = told.request, whole = request.duration_s || 1e-9;
  const from = Math.max(0, (other.began_at - request.started_at) / whole), to = Math.min(1,
    (other.ended_at - request.started_at) / whole);
  return svg("svg", {class: "presence", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true"},
    svg("rect", {class: "all", width: 100, height: 8}),
    svg("rect", {class: "part", x: (from * 100).toFixed(2), width: Math.max(0.5, (to - from) * 100).toFixed(2), height: 8}));
}
