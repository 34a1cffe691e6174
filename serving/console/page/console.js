// The page: who is there, the live connection, and what each frame changes.

import {announce, by, mark, say} from "./dom.js";
import {clock} from "./format.js";
import {attention} from "./attention.js";
import {explorer} from "./explorer.js";
import {models, remember} from "./models.js";
import {overview} from "./overview.js";
import {playground, stop} from "./playground.js";
import {promises} from "./promises.js";
import {reports} from "./reports.js";
import {Refused, ask, events, remembered, take} from "./wire.js";

const PANELS = [overview, models, promises, attention, explorer, playground, reports];
const THEMES = ["system", "light", "dark"];
let newest = null, drawn = null, heard = 0, every = 2, running = null;

function link(state, text) {
  if (by("link").dataset.state !== state && state !== "on" && newest) announce(text);
  mark(by("link"), "data-state", state);
  say(by("link-text"), text);
}

function draw() {
  if (newest === null || newest === drawn || document.hidden) return;
  drawn = newest;
  const now = newest;
  say(by("fleet"), now.fleet);
  document.title = `${now.fleet} · Flotilla console`;
  by("trouble").hidden = !now.trouble;
  say(by("trouble"), now.trouble);
  link(now.trouble ? "stale" : "on", now.trouble ? "no metrics" : `live ${clock(now.at)}`);
  for (const panel of PANELS) panel(now);
}

function open(inside) {
  by("gate").hidden = inside;
  by("inside").hidden = !inside;
  by("leave").hidden = !inside;
}

function leave(message = "") {
  take("");
  stop();
  running?.abort();
  running = null;
  open(false);
  link("off", "not connected");
  say(by("key-wrong"), message);
  by("key").focus();
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Stays connected until the key is forgotten or refused.
async function stay(mine) {
  for (let tries = 0; running === mine; tries += 1) {
    const attempt = new AbortController();
    mine.signal.addEventListener("abort", () => attempt.abort(), {once: true});
    const watch = setInterval(() => {
      if (performance.now() - heard > Math.max(15, 5 * every) * 1000) attempt.abort();
    }, 1000);
    try {
      heard = performance.now();
      const answer = await ask("events", {signal: attempt.signal});
      open(true);
      for await (const [name, data] of events(answer)) {
        const said = JSON.parse(data);
        heard = performance.now();
        tries = 0;
        if (name === "refused") return leave(said.message);
        if (name === "past") {
          said.forEach(remember);
        } else {
          every = said.every_s;
          remember({models: Object.fromEntries(said.models.map((m) =>
            [m.name, [m.tokens_per_s, m.ttft_p50_s, m.in_flight, m.usd_per_hour]]))});
          newest = said;
          requestAnimationFrame(draw);
        }
      }
    } catch (error) {
      if (running !== mine) return undefined;
      if (error instanceof Refused && (error.status === 401 || error.status === 403)) return leave(error.message);
      say(by("key-wrong"), newest ? "" : `${error.message}; trying again`);
    } finally {
      clearInterval(watch);
    }
    if (running === mine) {
      link("lost", "connection lost, trying again");
      await pause(Math.min(10, 0.5 * 2 ** tries) * 1000);
    }
  }
  return undefined;
}

function enter(key) {
  take(key);
  say(by("key-wrong"), "");
  link("off", "connecting");
  running = new AbortController();
  stay(running);
}

function theme(step) {
  const root = document.documentElement;
  const at = (THEMES.indexOf(root.dataset.theme || "system") + step) % THEMES.length;
  mark(root, "data-theme", at ? THEMES[at] : null);
  by("theme").setAttribute("aria-label", `Colours: ${at ? THEMES[at] : "as the system says"}`);
  say(by("theme"), "◐○●"[at]);
  sessionStorage.setItem("flotilla.theme", THEMES[at]);
}

by("gate").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  const typed = by("key").value.trim();
  by("key").value = "";
  if (typed) enter(typed);
});
by("leave").addEventListener("click", () => leave());
by("theme").addEventListener("click", () => theme(1));
document.addEventListener("visibilitychange", draw);
theme(Math.max(0, THEMES.indexOf(sessionStorage.getItem("flotilla.theme"))));
if (remembered()) enter(remembered());
else by("key").focus();
