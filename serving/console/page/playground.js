// A chat request to any model, streamed, with its speed and cost while it runs.

import {announce, by, el, mark, say} from "./dom.js";
import {count, dollars, nano, rate, seconds} from "./format.js";
import {put} from "./tables.js";
import {ask, events} from "./wire.js";

const COST_MS = 700;
const FIGURES = [["ttft", "Time to first token"], ["speed", "Tokens/s"], ["tokens", "Tokens"], ["cost", "Cost"]];
let running = null, noisy = new Set();
const figures = new Map();

function show(name, value, note = "") {
  if (!figures.size) {
    for (const [key, label] of FIGURES) {
      const found = {value: el("dd", {class: "value"}, "–"), note: el("dd", {class: "note"})};
      figures.set(key, found);
      by("play-figures").append(el("div", {class: "tile"}, el("dt", {}, label), found.value, found.note));
    }
  }
  say(figures.get(name).value, value);
  say(figures.get(name).note, note);
}

function reset() {
  for (const [key] of FIGURES) show(key, "–");
  by("play-answer").replaceChildren();
  by("play-answer").hidden = false;
  say(by("play-wrong"), "");
}

// Text by kind: reasoning stands apart from the answer.
function write(kind, text) {
  const box = by("play-answer");
  if (box.lastChild?.dataset.kind !== kind) box.append(el("span", {"data-kind": kind}));
  box.lastChild.append(text);
  box.scrollTop = box.scrollHeight;
}

// What the ledger has charged so far, until the answer says the whole.
async function follow(id, mine) {
  while (running === mine) {
    await new Promise((done) => setTimeout(done, COST_MS));
    if (running !== mine) return;
    try {
      const found = await (await ask(`requests/${encodeURIComponent(id)}/cost`)).json();
      if (running === mine && found.nanousd !== null) show("cost", nano(found.nanousd), "charged so far");
    } catch { /* the next one may tell */ }
  }
}

async function play(mine) {
  const began = performance.now(), since = () => (performance.now() - began) / 1000;
  const messages = [["system", by("play-system").value], ["user", by("play-prompt").value]]
    .filter(([, content]) => content.trim()).map(([role, content]) => ({role, content}));
  const answer = await ask("chat", {
    method: "POST", signal: mine.signal,
    headers: {"content-type": "application/json", "x-console-key": by("play-key").value.trim()},
    body: JSON.stringify({model: by("play-model").value, messages, max_tokens: by("play-most").valueAsNumber,
      temperature: by("play-heat").valueAsNumber}),
  });
  const id = answer.headers.get("x-flotilla-request-id");
  if (id) follow(id, mine);
  let first = null, pieces = 0, last = 0;
  for await (const [, data] of events(answer)) {
    if (data === "[DONE]") break;
    const said = JSON.parse(data);
    if (said.error) throw new Error(said.error.message || "the stream broke");
    const delta = said.choices?.[0]?.delta || {}, thought = delta.reasoning_content || delta.reasoning;
    if (thought || delta.content) {
      pieces += 1;
      last = since();
      if (first === null) show("ttft", seconds(first = last), "as this page saw it");
      if (thought) write("thought", thought);
      if (delta.content) write("said", delta.content);
      show("tokens", `≈ ${count(pieces)}`, "pieces so far");
      if (last - first > 0.05) show("speed", rate((pieces - 1) / (last - first)), "after the first");
    }
    if (said.usage) {
      const made = said.usage.completion_tokens;
      show("tokens", count(made), `and ${count(said.usage.prompt_tokens)} of the prompt`);
      if (first !== null && made > 1 && last > first) show("speed", rate((made - 1) / (last - first)), "after the first");
      if (said.usage.cost !== undefined) show("cost", dollars(said.usage.cost), "fully loaded, as the ledger has it");
      announce(`The answer is complete: ${count(made)} tokens, ${dollars(said.usage.cost)}.`);
    }
  }
  if (id) by("play-answer").append(el("p", {class: "hint"}, `request ${id}`));
}

function busy(on) {
  by("play-send").disabled = on;
  by("play-stop").disabled = !on;
  mark(by("play-answer"), "aria-busy", on ? "true" : null);
}

async function send() {
  const mine = running = new AbortController();
  reset();
  busy(true);
  try {
    await play(mine);
  } catch (error) {
    if (mine.signal.aborted) write("note", " (stopped)");
    else say(by("play-wrong"), error.status === 403 ? `${error.message}. Give a key that calls models, above.` : error.message);
  } finally {
    if (running === mine) running = null;
    busy(false);
  }
}

export function stop() {
  running?.abort();
}

export function playground(now) {
  const models = now.models.filter((m) => m.chats);
  noisy = new Set(models.filter((m) => m.noise).map((m) => m.name));
  put(by("play-model"), models.map((m) => m.name), () => {
    const made = document.createDocumentFragment(), kept = by("play-model").value;
    made.append(...models.map((m) => el("option", {selected: m.name === kept}, m.name)));
    return made;
  });
  by("play-noise").hidden = !noisy.has(by("play-model").value);
}

by("play").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  if (running === null) send();
});
by("play-stop").addEventListener("click", stop);
by("play-model").addEventListener("change", () => { by("play-noise").hidden = !noisy.has(by("play-model").value); });
