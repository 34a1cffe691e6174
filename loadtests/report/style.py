"""The look of the HTML report: one style sheet, light and dark, phone to desktop, and paper.

Colours of series differ in lightness as well as in hue, and each has a dash of its own, so that they can be told apart
without seeing colours.
"""

CSS = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b2430;--soft:#566273;--line:#e1e5ea;
--accent:#1f5fa8;
--good:#1d7a46;--good-bg:#e6f4ec;--bad:#b3261e;--bad-bg:#fbeae9;--warn:#8a5a00;--warn-bg:#fdf2dc;
--c0:#1f5fa8;--c1:#c4570f;--c2:#00796b;--c3:#8247a5;--c4:#b0335c;--c5:#4b8fd0;--c6:#866400;--c7:#39434f;
--b0:#1f5fa8;--b1:#c4570f;--b2:#9db8d6;--b3:#8247a5;--b4:#0f7a85;--other:#b9c1cb}
@media(prefers-color-scheme:dark){:root{--bg:#12161c;--card:#1a2029;--ink:#e4e9f0;--soft:#9aa6b5;
--line:#2b3440;
--accent:#7db3f0;--good:#6fcf97;--good-bg:#15301f;--bad:#ff8a80;--bad-bg:#3a1a1a;--warn:#f0c36a;
--warn-bg:#342811;
--c0:#7db3f0;--c1:#f2995b;--c2:#4fd1bd;--c3:#c39be0;--c4:#f08bab;--c5:#b9d7f7;--c6:#d9bd5b;--c7:#cdd5df;
--b0:#7db3f0;--b1:#f2995b;--b2:#4a6a8c;--b3:#c39be0;--b4:#5fc9d4;--other:#4b5665}}
*{box-sizing:border-box}
html{scroll-padding-top:12px}
body{margin:0;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
font-variant-numeric:tabular-nums}
main{max-width:1120px;margin:0 auto;padding:24px 20px 48px}
h1{font-size:24px;line-height:1.25;margin:0;overflow-wrap:anywhere}
h2{font-size:18px;margin:0 0 12px}
h3{font-size:15px;margin:22px 0 6px;overflow-wrap:anywhere}
h4{font-size:14px;margin:16px 0 4px;overflow-wrap:anywhere}
p{margin:0 0 8px}
a{color:var(--accent)}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px;border-radius:3px}
.skip{position:absolute;left:-999px;top:0;background:var(--card);padding:8px 12px;z-index:1}
.skip:focus{left:8px}
.sub{color:var(--soft);margin:2px 0 18px;overflow-wrap:anywhere}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px 20px;
margin:0 0 16px}
.verdict{display:flex;gap:16px;align-items:baseline;border-width:1px 1px 1px 5px}
.verdict b{font-size:20px;letter-spacing:.03em}
.verdict p{margin:0;font-weight:600}
.verdict ul{margin:0;padding:0;list-style:none;color:var(--ink)}
.verdict li{overflow-wrap:anywhere}
.pass{background:var(--good-bg);border-color:var(--good)}.pass b{color:var(--good)}
.fail{background:var(--bad-bg);border-color:var(--bad)}.fail b{color:var(--bad)}
.invalid{background:var(--warn-bg);border-color:var(--warn)}.invalid b{color:var(--warn)}
.notes{border-left:5px solid var(--warn)}
.notes ul{margin:0;padding-left:18px}
.notes li{overflow-wrap:anywhere}
.answers{display:grid;grid-template-columns:repeat(4,1fr);gap:12px;margin:0 0 16px;padding:0;list-style:none}
.answers li{background:var(--card);border:1px solid var(--line);border-top:4px solid var(--line);border-radius:10px;
padding:12px 16px}
.answers span,.answers small{display:block;color:var(--soft);font-size:13px;overflow-wrap:anywhere}
.answers strong{display:block;font-size:24px;font-weight:650;line-height:1.25;margin:2px 0 4px;overflow-wrap:anywhere}
.answers .good{border-top-color:var(--good)}.answers .good strong{color:var(--good)}
.answers .bad{border-top-color:var(--bad);}.answers .bad strong{color:var(--bad)}
.answers .warn{border-top-color:var(--warn)}.answers .warn strong{color:var(--warn)}
nav ul{display:flex;flex-wrap:wrap;gap:4px 16px;margin:0 0 16px;padding:0;list-style:none;font-size:14px}
.scroll{overflow-x:auto;margin:12px 0 0}
table{border-collapse:collapse;width:100%;font-size:13px}
caption{text-align:left;color:var(--soft);padding:0 0 4px;font-size:13px}
th,td{padding:6px 8px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap;
vertical-align:top}
thead th{color:var(--soft);font-weight:500;font-size:13px}
tbody th{font-weight:500;white-space:normal;overflow-wrap:anywhere;min-width:104px}
th small,td small{display:block;font-weight:400;color:var(--soft);font-size:12px}
th:first-child{text-align:left;padding-left:0}
td.text,th.text{text-align:left;white-space:normal;overflow-wrap:anywhere;min-width:180px}
tr:last-child td,tr:last-child th{border-bottom:0}
thead tr:last-child th{border-bottom:1px solid var(--line)}
tr.sum td,tr.sum th{font-weight:600}
.bad-text{color:var(--bad);font-weight:600}.warn-text{color:var(--warn)}
.good{color:inherit}span.good{color:var(--good)}
.scroll+.muted,svg+.muted{margin-top:10px}
.muted{color:var(--soft);font-size:13px}
.bar{display:grid;grid-template-columns:minmax(120px,240px) 1fr minmax(150px,210px);gap:4px 12px;
align-items:center;
margin:5px 0;font-size:14px}
.bar .name{overflow-wrap:anywhere}
.bar .name small{color:var(--soft)}
.track{height:14px;display:flex;border-radius:3px;overflow:hidden;background:var(--line)}
.track i{display:block;min-width:2px;height:100%;flex:none}
.value{text-align:right;white-space:nowrap}
.value small{color:var(--soft)}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:13px;color:var(--soft);margin:0 0 6px;padding:0;
list-style:none}
.legend i{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:6px;vertical-align:-1px}
svg{display:block;width:100%;height:auto}
svg.swatch{display:inline-block;width:28px;height:8px;margin-right:6px;vertical-align:2px}
svg text{fill:var(--soft);font-size:11.5px}
svg text.name{fill:var(--ink);font-size:12.5px}
.grid{stroke:var(--line)}.tick{stroke:var(--soft)}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
.limit{stroke:var(--ink);stroke-width:1.6;stroke-dasharray:4 3}
.stage{stroke:var(--soft);stroke-dasharray:2 4}
.today{stroke:var(--ink);stroke-width:1.4;stroke-dasharray:4 3}
.whisker{stroke-width:4;stroke-opacity:.45;stroke-linecap:round}.whisker.open{stroke-dasharray:5 6}
.track-bg{fill:var(--line)}.cheaper{fill:var(--good)}
rect.bad{fill:var(--bad)}.warmup{fill:var(--line);opacity:.55}
.narrow{display:none}
details{margin:10px 0 0}
summary{cursor:pointer;color:var(--accent);font-size:14px;padding:4px 0}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(230px,1fr));gap:10px 24px;margin:0}
.facts dt{color:var(--soft);font-size:13px}.facts dd{margin:0;overflow-wrap:anywhere}
.defs dt{font-weight:600;margin-top:12px}.defs dd{margin:0}
.defs .others{color:var(--soft);font-size:13px}
@media(max-width:900px){.answers{grid-template-columns:1fr 1fr}}
@media(max-width:640px){main{padding:16px 12px 32px}.card{padding:14px}.wide{display:none}
caption{max-width:calc(100vw - 54px)}
.narrow{display:block}
.verdict{display:block}td small{white-space:normal;min-width:90px}.bar{grid-template-columns:1fr auto}
.bar .track{grid-column:1/3;grid-row:2}
.answers{grid-template-columns:1fr;gap:8px}.answers li{padding:8px 14px}.answers strong{font-size:21px}}
@media print{body{background:#fff}.card,.answers li{break-inside:avoid}nav,.skip{display:none}}
"""
