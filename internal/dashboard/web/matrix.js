// Who calls whom, as numbers: a row a calling region, a column a server, or a
// region's servers where they are many, shaded by how many requests a cell has.
import { $, el, text, attr, keyed } from './dom.js';
import { rate, total, regionName } from './model.js';

/** @typedef {import('./wire').Snapshot} Snapshot */
/** @typedef {import('./wire').Tick} Tick */

export function matrix() {
  const head = el('tr');
  const body = el('tbody');
  const foot = el('tr');
  $('matrix').append(el('table', '', el('caption', 'hidden', 'Requests a second, by calling region and by who serves them'), el('thead', '', head), body, el('tfoot', '', foot)));
  /** @type {Snapshot} */ let now;
  /** @type {HTMLElement[][]} */ let cells = [];
  /** @type {HTMLElement[]} */ let sums = [];
  /** @type {{ label: string, region: number, servers: number[] }[]} */ let columns = [];

  /** @param {Snapshot} s */
  function snapshot(s) {
    now = s;
    const fine = s.servers.length <= 16;
    columns = fine
      ? s.servers.map((server, i) => ({ label: server.name, region: s.regions.indexOf(server.region), servers: [i] }))
      : s.regions.map((region, r) => ({ label: regionName(region), region: r, servers: s.servers.flatMap((x, i) => (x.region === region ? [i] : [])) }));
    head.replaceChildren(el('th', 'corner', 'from ↓  to →'), ...columns.map((c) => {
      const th = el('th', '', c.label);
      th.setAttribute('scope', 'col');
      th.dataset.region = String(c.region % 8);
      return th;
    }), el('th', 'num', 'all'));
    cells = keyed(body, s.regions, (region) => region + columns.length, (region) => {
      const th = el('th', '', regionName(region));
      th.setAttribute('scope', 'row');
      const cells = [...columns, null].map(() => el('td', 'num'));
      return { node: el('tr', '', th, ...cells), cells };
    }, (row, _, r) => attr(row.node, 'data-region', r % 8)).map((row) => row.cells);
    sums = [...columns, null].map(() => el('td', 'num'));
    const all = el('th', '', 'all');
    all.setAttribute('scope', 'row');
    foot.replaceChildren(all, ...sums);
  }

  /** @param {Tick} t */
  function tick(t) {
    if (!now || $('matrix').hidden) return;
    const known = (/** @type {number[]} */ values) => total(values, (v) => v);
    const value = t.flows.map((row) => columns.map((c) => total(c.servers, (i) => row[i])));
    const most = Math.max(...value.flat(), 1);
    value.forEach((row, r) => {
      row.forEach((v, c) => {
        text(cells[r][c], v ? rate(v) : '·');
        cells[r][c].style.setProperty('--heat', (Math.max(v, 0) / most).toFixed(2));
      });
      text(cells[r][columns.length], rate(known(row)));
    });
    columns.forEach((_, c) => text(sums[c], rate(known(value.map((row) => row[c])))));
    text(sums[columns.length], rate(known(value.flat())));
  }

  return { snapshot, tick };
}
