// Plain tables that are made anew when their rows change.

import {el} from "./dom.js";

// columns: [label, kind], kind "text" or "". rows: arrays of text or nodes; the first cell is the row's head.
export function table(name, columns, rows) {
  return el("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": `${name}, table`},
    el("table", {}, el("caption", {class: "unseen"}, name),
      el("thead", {}, el("tr", {}, columns.map(([label, kind]) => el("th", {scope: "col", class: kind || null}, label)))),
      el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell, at) =>
        el(at ? "td" : "th", {scope: at ? null : "row", class: columns[at][1] || null}, cell)))))));
}

// Replaces what is in a place, but only when it would show something else.
const shown = new WeakMap();
export function put(place, about, make) {
  const text = JSON.stringify(about);
  if (shown.get(place) === text) return;
  shown.set(place, text);
  place.replaceChildren(make());
}
