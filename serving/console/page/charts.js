// Curves as SVG, coloured by the style sheet.

import {svg} from "./dom.js";

// A small curve of the newest values; nulls are gaps. What it says stands in words beside it.
export class Spark {
  constructor(width = 120, height = 26) {
    this.width = width;
    this.height = height;
    this.area = svg("path", {class: "area"});
    this.line = svg("path", {class: "line"});
    this.limit = svg("path", {class: "limit"});
    this.node = svg("svg", {class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none",
      "aria-hidden": "true", focusable: "false"}, this.area, this.limit, this.line);
  }

  draw(values, room, limit = null) {
    const most = Math.max(limit ?? 0, ...values.map((v) => v ?? 0)) || 1;
    const x = (at) => ((room - values.length + at) / Math.max(1, room - 1)) * this.width;
    const y = (v) => this.height - 2 - (v / most) * (this.height - 4);
    let line = "", area = "", run = [];
    const flush = () => {
      if (run.length) {
        const points = run.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join("L");
        line += `M${points}${run.length === 1 ? `h0.5` : ""}`;
        area += `M${run[0][0].toFixed(1)},${this.height}L${points}L${run.at(-1)[0].toFixed(1)},${this.height}Z`;
      }
      run = [];
    };
    values.forEach((v, at) => (v === null || v === undefined ? flush() : run.push([x(at), y(v)])));
    flush();
    this.line.setAttribute("d", line);
    this.area.setAttribute("d", area);
    this.limit.setAttribute("d", limit === null ? "" : `M0,${y(limit).toFixed(1)}H${this.width}`);
  }
}
