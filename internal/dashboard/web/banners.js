// What must be seen before anything else: that the page is not true, or that
// something is held.
import { $, stamp, text, keyed } from './dom.js';
import { age } from './model.js';
import { askAccept } from './acts.js';

/** @typedef {import('./wire').Snapshot} Snapshot */

export function banners() {
  /** @type {Snapshot} */ let now;
  /** @type {{ node: HTMLElement, until: number }[]} */ let ends = [];
  let stale = '';

  function notices() {
    const all = now?.notices ?? [];
    const shown = stale ? [{ title: 'Not live', text: stale }, ...all] : all;
    keyed($('notices'), shown, (n) => n.title, () => stamp('t-notice'), (row, n) => {
      text(row.parts.title, n.title);
      text(row.parts.text, n.text);
    });
  }

  return {
    /** @param {Snapshot} s @param {boolean} mayAct */
    snapshot(s, mayAct) {
      now = s;
      notices();
      ends = [];
      keyed($('held'), s.held, (h) => h.service, () => stamp('t-held'), (row, h) => {
        text(row.parts.title, `${h.service} is held as it was`);
        text(row.parts.reason, h.reason);
        row.parts.review.hidden = !mayAct;
        row.parts.review.onclick = () => askAccept(h);
        ends.push({ node: row.parts.until, until: h.until });
      });
    },
    /** @param {import('./wire').Tick} t */
    tick(t) {
      for (const { node, until } of ends) {
        text(node, !until ? '' : until > t.at ? `In ${age(until - t.at)}, if it stands.` : 'With the next list.');
      }
    },
    /** @param {import('./live.js').Liveness} state @param {number} ms */
    liveness(state, ms) {
      const next = state === 'refused' ? 'You may not look at this page any more: the policy of the tailnet says who may.'
        : state === 'stale' ? `The control plane has not been heard of for ${age(ms)}. The figures are as old, and the page tries again by itself.` : '';
      if (next === stale) return;
      stale = next;
      notices();
    },
  };
}
