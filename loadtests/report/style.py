"""The look of the HTML report: one style sheet, light and dark, phone to desktop."""

CSS = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b2430;--soft:#5a6675;--line:#e1e5ea;
--accent:#1f5fa8;
--good:#1d7a46;--good-bg:#e6f4ec;--bad:#b3261e;--bad-bg:#fbeae9;--warn:#8a5a00;--warn-bg:#fdf2dc;
--c0:#1f5fa8;--c1:#c4570f;--c2:#2b7d4e;--c3:#8247a5;--c4:#b0335c;--c5:#0f7a85;--c6:#866400;--c7:#5a6675;
--b0:#1f5fa8;--b1:#c4570f;--b2:#9db8d6;--b3:#8247a5;--b4:#0f7a85;--other:#b9c1cb}
@media(prefers-color-scheme:dark){:root{--bg:#12161c;--card:#1a2029;--ink:#e4e9f0;--soft:#9aa6b5;
--line:#2b3440;
--accent:#7db3f0;--good:#6fcf97;--good-bg:#15301f;--bad:#ff8a80;--bad-bg:#3a1a1a;--warn:#f0c36a;
--warn-bg:#342811;
--c0:#7db3f0;--c1:#f2995b;--c2:#6fcf97;--c3:#c39be0;--c4:#f08bab;--c5:#5fc9d4;--c6:#d9bd5b;--c7:#9aa6b5;
--b0:#7db3f0;--b1:#f2995b;--b2:#4a6a8c;--b3:#c39be0;--b4:#5fc9d4;--other:#4b5665}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
font-variant-numeric:tabular-nums}
main{max-width:1120px;margin:0 auto;padding:24px 20px 48px}
h1{font-size:24px;line-height:1.25;margin:0;overflow-wrap:anywhere}
h2{font-size:17px;margin:0 0 12px}
h3{font-size:14px;margin:18px 0 6px;overflow-wrap:anywhere}
p{margin:0 0 8px}
.sub{color:var(--soft);margin:2px 0 18px;overflow-wrap:anywhere}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px 20px;
margin:0 0 16px}
.verdict{display:flex;gap:16px;align-items:baseline;border-width:1px 1px 1px 5px}
.verdict b{font-size:20px;letter-spacing:.03em}
.verdict ul{margin:0;padding:0;list-style:none}
.verdict li{overflow-wrap:anywhere}
.pass{background:var(--good-bg);border-color:var(--good)}.pass b{color:var(--good)}
.fail{background:var(--bad-bg);border-color:var(--bad)}.fail b{color:var(--bad)}
.invalid{background:var(--warn-bg);border-color:var(--warn)}.invalid b{color:var(--warn)}
.notes{border-left:5px solid var(--warn)}
.notes ul{margin:0;padding-left:18px}
.heads{display:grid;grid-template-columns:repeat(4,1fr);gap:12px;margin:0 0 16px}
.head{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 16px}
.head span{display:block;color:var(--soft);font-size:13px}
.head strong{display:block;font-size:22px;font-weight:600;line-height:1.3;overflow-wrap:anywhere}
.head small{display:block;color:var(--soft);font-size:13px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:13px}
th,td{padding:6px 8px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap;
vertical-align:top}
th{color:var(--soft);font-weight:500;font-size:13px}
th small{display:block;font-weight:400}
th:first-child,td:first-child{text-align:left;padding-left:0}
td.text,th.text{text-align:left;white-space:normal;overflow-wrap:anywhere;min-width:180px}
td small{display:block;color:var(--soft)}
tr:last-child td{border-bottom:0}
tr.sum td{font-weight:600}
.wrong{color:var(--bad);font-weight:600}
.scroll+.muted{margin-top:14px}
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
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:13px;color:var(--soft);margin:0 0 6px}
.legend i{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:6px;vertical-align:-1px}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font-size:11.5px}
.grid{stroke:var(--line)}.tick{stroke:var(--soft)}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round}
.bad{fill:var(--bad)}.dot{fill:var(--c2)}.warmup{fill:var(--line);opacity:.55}
.narrow{display:none}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(230px,1fr));gap:10px 24px;margin:0}
.facts dt{color:var(--soft);font-size:13px}.facts dd{margin:0;overflow-wrap:anywhere}
.defs dt{font-weight:600;margin-top:12px}.defs dd{margin:0}
.defs .others{color:var(--soft);font-size:13px}
@media(max-width:640px){main{padding:16px 12px 32px}.card{padding:14px}.wide{display:none}
.narrow{display:block}
.verdict{display:block}td small{white-space:normal;min-width:110px}.bar{grid-template-columns:1fr auto}
.bar .track{grid-column:1/3;grid-row:2}
.heads{grid-template-columns:1fr 1fr;gap:8px}.head{padding:10px 12px}.head strong{font-size:19px}}
@media print{body{background:#fff}.card,.head{break-inside:avoid}}
"""
