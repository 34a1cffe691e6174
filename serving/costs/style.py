"""The look of the cost page: one style sheet, light and dark, phone to desktop, and paper."""

CSS = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b2430;--soft:#566273;--line:#e1e5ea;--accent:#1f5fa8;
--good:#1d7a46;--bad:#b3261e;
--b0:#1f5fa8;--b1:#b3261e;--b2:#9db8d6;--b3:#8247a5;--b4:#0f7a85;
--l0:#2b7d4e;--l1:#c4570f;--l2:#8247a5}
@media(prefers-color-scheme:dark){:root{--bg:#12161c;--card:#1a2029;--ink:#e4e9f0;--soft:#9aa6b5;--line:#2b3440;
--accent:#7db3f0;--good:#6fcf97;--bad:#ff8a80;
--b0:#7db3f0;--b1:#ff8a80;--b2:#4a6a8c;--b3:#c39be0;--b4:#5fc9d4;
--l0:#6fcf97;--l1:#f2995b;--l2:#c39be0}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
font-variant-numeric:tabular-nums}
main{max-width:1120px;margin:0 auto;padding:24px 20px 48px}
h1{font-size:24px;line-height:1.25;margin:0;overflow-wrap:anywhere}
h2{font-size:17px;margin:0 0 10px}
h3{font-size:15px;margin:22px 0 4px;overflow-wrap:anywhere}
h3:first-of-type{margin-top:8px}
p{margin:0 0 8px}
.sub{color:var(--soft);margin:2px 0 18px;overflow-wrap:anywhere}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px 20px;margin:0 0 16px}
.heads{display:grid;grid-template-columns:repeat(4,1fr);gap:12px;margin:0 0 16px;padding:0;list-style:none}
.heads li{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 16px}
.heads span,.heads small{display:block;color:var(--soft);font-size:13px}
.heads strong{display:block;font-size:22px;font-weight:600;line-height:1.3;overflow-wrap:anywhere}
.muted{color:var(--soft);font-size:13px}
.scroll{overflow-x:auto;margin:12px 0 0}
table{border-collapse:collapse;width:100%;font-size:13px}
caption{text-align:left;color:var(--soft);padding:0 0 4px;font-size:13px}
th,td{padding:6px 8px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap;vertical-align:top}
thead th{color:var(--soft);font-weight:500;white-space:normal}
tbody th{font-weight:500}
th:first-child{text-align:left;padding-left:0}
tbody th{white-space:normal;overflow-wrap:anywhere;min-width:104px}
td small,th small{display:block;color:var(--soft);font-weight:400}
tr:last-child td,tr:last-child th{border-bottom:0}
tr.sum td,tr.sum th{font-weight:600}
.warning{border-left:4px solid var(--bad);padding:8px 12px;margin:0 0 16px}
.good{color:var(--good)}.bad{color:var(--bad)}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:13px;color:var(--soft);
margin:0 0 8px;padding:0;list-style:none}
.legend i{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:6px;vertical-align:-1px}
.legend b{display:inline-block;width:24px;margin-right:6px;vertical-align:4px}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font-size:12px}
svg text.name{fill:var(--ink)}
.grid{stroke:var(--line)}.tick{stroke:var(--soft)}
.curve{fill:none;stroke:var(--accent);stroke-width:2.4;stroke-linejoin:round}
.level{stroke-width:1.8}
.today{stroke:var(--soft);stroke-dasharray:3 3}
.now{fill:var(--accent);stroke:var(--card);stroke-width:2}
.narrow{display:none}
details summary{cursor:pointer;color:var(--accent);font-size:13px;margin-top:8px}
dl{margin:0}dt{font-weight:600;margin-top:10px}dd{margin:0}
@media(max-width:640px){main{padding:16px 12px 32px}.card{padding:14px}.wide{display:none}.narrow{display:block}
.heads{grid-template-columns:1fr 1fr;gap:8px}.heads li{padding:10px 12px}.heads strong{font-size:19px}}
@media print{body{background:#fff}.card,.heads li{break-inside:avoid}}
"""
