// The row of figures at the top: the service in one look.
import { $, text, attr } from './dom.js';
import { rate, percent, signed, millis, off, health } from './model.js';

/** @typedef {import('./wire').Snapshot} Snapshot */
/** @typedef {import('./wire').Tick} Tick */

export function stats() {
  /** @type {Snapshot} */ let now;

  /** @param {Snapshot} s */
  function snapshot(s) {
    now = s;
    const serving = s.servers.filter((x) => x.state === 'serving').length;
    text($('k-serving'), String(serving));
    text($('k-servers'), `of ${s.servers.length}`);
    const inSync = s.entries.filter((e) => e.sync === 'in sync').length;
    text($('k-sync'), String(inSync));
    text($('k-entries'), `of ${s.entries.length}`);
    const rejected = s.entries.filter((e) => e.sync === 'rejected').length;
    text($('k-sync-sub'), rejected ? `${rejected} rejected` : inSync < s.entries.length ? 'on its way' : s.entries.length ? 'all took it' : 'none connected');
  }

  /** @param {Tick} t */
  function tick(t) {
    const [requests, failed, p50, p99] = t.total;
    text($('k-rate'), rate(requests));
    text($('k-ok'), requests > 0 ? (100 - (failed / requests) * 100).toFixed(2) : '–');
    text($('k-ok-sub'), requests < 0 ? 'not measured' : !requests ? 'nothing is asked' : failed ? `${rate(failed)} /s fail` : 'none fails');
    text($('k-p50'), millis(p50));
    text($('k-p99'), millis(p99));
    const worst = t.entries.reduce((w, e, i) => (e[3] > (t.entries[w]?.[3] ?? -1) ? i : w), -1);
    text($('k-lat-sub'), worst >= 0 ? `worst at ${now.entries[worst].name}` : 'not measured');
    text($('k-cross'), percent(t.crossing));
    text($('k-cross-sub'), now.mode);
    servers(t);
    gap(t);
  }

  /** @param {Tick} t */
  function servers(t) {
    const states = ['drained', 'offline', 'expiring', 'expired'].map((state) => ({ state, n: now.servers.filter((x) => x.state === state).length }));
    const found = (/** @type {string} */ sign) => now.servers.filter((x, i) => x.state === 'serving' && health(t.servers[i][4], t.servers[i][5]).sign === sign).length;
    const sick = found('sick'), some = found('some');
    states.unshift({ state: 'unhealthy', n: sick }, { state: 'unhealthy for some', n: some });
    text($('k-serving-sub'), states.filter((x) => x.n).map((x) => `${x.n} ${x.state}`).join(', ') || (now.servers.length ? 'all serve' : 'none yet'));
    attr($('k-serving'), 'data-off', sick + some ? '' : null);
  }

  /** The server whose share differs most from the expected one. @param {Tick} t */
  function gap(t) {
    const counted = (t.total[0] * t.window) / 1000;
    let most = 0, where = '', isOff = false;
    now.servers.forEach((server, i) => {
      const [, , share, expected] = t.servers[i];
      const g = share - expected;
      if (server.state !== 'serving' || share < 0 || expected < 0 || (where && Math.abs(g) <= Math.abs(most))) return;
      most = g; where = server.name; isOff = off(share, expected, counted);
    });
    text($('k-gap'), where ? signed(most * 100) : '–');
    text($('k-gap-sub'), !where ? 'nothing to compare' : isOff ? `${where}, ${most < 0 ? 'below' : 'above'} its share` : 'as expected');
    attr($('k-gap'), 'data-off', isOff ? '' : null);
  }

  /** @param {import('./wire').History} h */
  function history(h) {
    const rates = h.rate.filter((r) => r >= 0);
    const least = Math.min(...rates), range = Math.max(...rates) - least || 1;
    const steps = h.rate.length;
    const points = h.rate.flatMap((v, k) => (v < 0 ? [] : [`${k} ${(27 - ((v - least) / range) * 24).toFixed(1)}`]));
    const path = points.length > 1 ? `M${points.join('L')}` : '';
    attr($('spark'), 'viewBox', `0 0 ${Math.max(steps - 1, 1)} 30`);
    attr($('spark').lastElementChild, 'd', path);
    attr($('spark').firstElementChild, 'd', path && `${path}L${points[points.length - 1].split(' ')[0]} 30L${points[0].split(' ')[0]} 30Z`);
    text($('k-rate-sub'), points.length > 1 ? `${rate(least)} to ${rate(Math.max(...rates))}` : '');
  }

  return { snapshot, tick, history };
}
