// The lists at the side: problems, and what changed.
import { $, stamp, text, attr, icon, keyed } from './dom.js';
import { age } from './model.js';

/** @typedef {import('./wire').Snapshot} Snapshot */

/** @param {{ select: (kind: 'server'|'entry'|'', id: string) => void, point: (id: string) => void }} act */
export function side(act) {
  /** @type {{ node: HTMLElement, since: number, suffix: string }[]} */ let ages = [];

  /** A name that opens what it names, if that is shown. @param {Record<string, HTMLElement>} parts
   * @param {string} name @param {'server'|'entry'|''} kind @param {string} id */
  function link(parts, name, kind, id) {
    text(parts.device, name);
    text(parts.name, name);
    parts.device.hidden = !name || !id;
    parts.name.hidden = !name || Boolean(id);
    parts.device.onclick = () => act.select(kind, id);
  }

  /** @param {Snapshot} s */
  function snapshot(s) {
    ages = [];
    text($('problems-count'), String(s.problems.length || ''));
    const none = { severity: '', about: '', id: '', name: '', title: 'None. Nothing needs you.', words: '', mend: '', since: 0 };
    keyed($('problems'), s.problems.length ? s.problems : [none], (p) => p.about + p.id + p.name + p.title + p.words, () => stamp('t-problem'), (row, p) => {
      attr(row.node, 'data-severity', p.severity || 'none');
      icon(row.parts.icon, p.severity === 'error' ? 'rejected' : p.severity === 'warning' ? 'attention' : 'in-sync');
      text(row.parts.severity, p.severity ? p.severity + ': ' : '');
      link(row.parts, p.name, /** @type {'server'|'entry'|''} */ (p.about), p.about && p.id);
      text(row.parts.title, p.title);
      text(row.parts.words, p.words);
      text(row.parts.mend, p.mend);
      row.parts.mendline.hidden = !p.mend;
      text(row.parts.age, '');
      if (p.since) ages.push({ node: row.parts.age, since: p.since, suffix: '' });
    });
    $('no-changes').hidden = s.changes.length > 0;
    keyed($('changes'), s.changes, (c) => c.id, () => stamp('t-change'), (row, c) => {
      const server = s.servers.find((x) => x.name === c.name), entry = s.entries.find((x) => x.name === c.name);
      attr(row.node, 'data-kind', c.kind);
      icon(row.parts.icon, $('i-' + c.kind) ? c.kind : 'other');
      link(row.parts, c.name, server ? 'server' : 'entry', server?.id ?? entry?.id ?? '');
      text(row.parts.text, c.text);
      text(row.parts.by, c.by ? ` by ${c.by}` : '');
      text(row.parts.effect, c.effect);
      row.node.onpointerenter = () => act.point(c.id);
      row.node.onpointerleave = () => act.point('');
      attr(row.parts.age, 'datetime', new Date(c.at).toISOString());
      attr(row.parts.age, 'title', new Date(c.at).toLocaleString());
      ages.push({ node: row.parts.age, since: c.at, suffix: ' ago' });
    });
  }

  /** @param {number} at */
  function clock(at) {
    for (const a of ages) text(a.node, age(at - a.since) + a.suffix);
  }

  return { snapshot, clock };
}
