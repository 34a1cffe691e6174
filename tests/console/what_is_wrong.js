// An expression: what of the page would stop hands without a mouse, or ears. Every control has a name, every picture
// words, every table heads and a caption; no id is there twice; headings have no gaps.
(() => {
  const seen = e => e.getClientRects().length > 0, found = [];
  const name = e => (e.getAttribute('aria-label') || e.labels?.[0]?.textContent || e.textContent || e.alt || '').trim();
  for (const e of document.querySelectorAll('button, a, input, select, textarea, [tabindex="0"]'))
    if (seen(e) && !name(e)) found.push('no name: ' + e.outerHTML.slice(0, 120));
  for (const e of document.querySelectorAll('svg'))
    if (seen(e) && e.getAttribute('aria-hidden') !== 'true' && !(e.getAttribute('role') === 'img' &&
        (e.getAttribute('aria-label') || e.querySelector('title')))) found.push('no words: ' + e.outerHTML.slice(0, 120));
  for (const e of document.querySelectorAll('table'))
    if (!e.caption || [...e.querySelectorAll('th')].some(h => !h.scope)) found.push('table: ' + e.outerHTML.slice(0, 120));
  for (const e of document.querySelectorAll('section, nav, [role=region]'))
    if (!e.getAttribute('aria-label') && !document.getElementById(e.getAttribute('aria-labelledby')))
      found.push('region: ' + e.outerHTML.slice(0, 120));
  const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
  found.push(...ids.filter((id, at) => ids.indexOf(id) !== at).map(id => 'twice: ' + id));
  let level = 0;
  for (const e of document.querySelectorAll('h1, h2, h3, h4')) {
    const now = Number(e.tagName[1]);
    if (now > level + 1) found.push('heading skips: ' + e.textContent);
    level = now;
  }
  return found;
})()
