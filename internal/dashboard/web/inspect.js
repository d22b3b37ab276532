// What is known of one server or Envoy, and what can be done about it.
import { $, el, text } from './dom.js';
import { rate, percent, millis, age, health, regionName, clock } from './model.js';
import { askDrain, askRestore } from './acts.js';

/** @typedef {import('./wire').Snapshot} Snapshot */
/** @typedef {import('./wire').Server} Server */
/** @typedef {import('./wire').Tick} Tick */

/** @param {string} term @param {...(Node|string)} value */
const line = (term, ...value) => el('div', '', el('dt', '', term), el('dd', '', ...value));

/** @param {() => void} close */
export function inspector(close) {
  const panel = $('inspector');
  /** @type {Snapshot} */ let now;
  let mayAct = false, kind = '', id = '', at = Date.now();
  /** @type {(t: Tick) => void} */ let update = () => {};

  function draw() {
    panel.hidden = !kind;
    update = () => {};
    if (!kind || !now) return;
    const found = kind === 'server' ? now.servers.find((x) => x.id === id) : now.entries.find((x) => x.id === id);
    const title = el('h2', '', found?.name ?? id);
    title.id = 'inspect-title';
    title.tabIndex = -1;
    const shut = el('button', 'icon-button', closeIcon(), el('span', 'hidden', 'Close'));
    shut.setAttribute('type', 'button');
    shut.addEventListener('click', close);
    const head = el('div', 'card-head', title, el('span', 'sub', kind === 'server' ? 'server' : 'Envoy'), shut);
    panel.replaceChildren(head, ...(kind === 'server' ? server() : entry()));
  }

  function server() {
    const i = now.servers.findIndex((x) => x.id === id);
    if (i < 0) return [el('p', 'sub', 'It is no longer listed.')];
    const x = now.servers[i];
    const share = el('b'), expectedText = el('span'), got = el('span'), errors = el('span'), says = el('span');
    const bar = el('span', 'bar big');
    const callers = now.regions.map((region, r) => {
      const value = el('span', 'num'), fill = el('span', 'fill');
      fill.dataset.region = String(r % 8);
      return { row: el('li', '', el('span', '', regionName(region)), el('span', 'track', fill), value), value, fill };
    });
    panel.dataset.region = String(now.regions.indexOf(x.region) % 8);
    update = (t) => {
      at = t.at;
      const [requests, failed, observed, expected, healthy, judges] = t.servers[i];
      const scale = Math.max(...t.servers.map((y) => y[3]), 0.001) * 1.3;
      text(share, `${percent(observed)} %`);
      text(expectedText, ` of requests, ${percent(expected)} % expected`);
      text(got, `${rate(requests)} /s`);
      text(errors, failed > 0 ? `${rate(failed)} /s (${((failed / requests) * 100).toFixed(1)} %)` : failed < 0 ? '–' : 'none');
      text(says, health(healthy, judges).words);
      bar.style.setProperty('--share', String(Math.min(Math.max(observed, 0) / scale, 1)));
      bar.style.setProperty('--expected', String(Math.max(expected, 0) / scale));
      const most = Math.max(...t.flows.map((row) => row[i]), 0.001);
      callers.forEach((c, r) => {
        text(c.value, rate(t.flows[r][i]));
        c.fill.style.setProperty('--share', (Math.max(t.flows[r][i], 0) / most).toFixed(3));
      });
    };
    return [
      el('div', 'facts-head', bar, el('p', '', share, expectedText)),
      el('dl', 'facts',
        line('State', x.state + (x.held ? ', held' : '') + (x.why ? `: ${x.why}` : '')), ...word(x),
        line('Health', says), line('Weight', String(x.weight)), line('Requests', got), line('Failed', errors),
        line('Region', regionName(x.region) + (x.zone ? `, zone ${x.zone}` : '') + (x.priority ? `, priority ${x.priority}` : '')),
        line('Address', el('code', '', x.id)), ...(x.tags.length ? [line('Tags', ...x.tags.map((tag) => el('code', 'tag', tag)))] : [])),
      el('h3', '', 'Called from'), el('ul', 'called', ...callers.map((c) => c.row)),
      ...acts(x),
    ];
  }

  /** An operator's word. @param {Server} x */
  function word(x) {
    if (!x.word) return [];
    const end = x.word.until ? `until ${clock(x.word.until, at)}` : 'until it is restored';
    return [line('Operator', `drained by ${x.word.by}, ${end}`)];
  }

  /** @param {Server} x */
  function acts(x) {
    if (!mayAct) return [];
    const button = el('button', 'button' + (x.word ? '' : ' quiet'), x.word ? 'Restore…' : 'Drain…');
    button.setAttribute('type', 'button');
    const viewer = () => $('viewer').textContent ?? '';
    button.addEventListener('click', () => (x.word ? askRestore(x, now.service, viewer()) : askDrain(x, now.service, viewer())));
    return [el('div', 'acts', button)];
  }

  function entry() {
    const i = now.entries.findIndex((x) => x.id === id);
    if (i < 0) return [el('p', 'sub', 'It is no longer connected.')];
    const x = now.entries[i];
    const got = el('span'), p50 = el('span'), p99 = el('span'), since = el('span');
    update = (t) => {
      text(got, `${rate(t.entries[i][0])} /s`);
      text(p50, `${millis(t.entries[i][2])} ms`);
      text(p99, `${millis(t.entries[i][3])} ms`);
      text(since, age(t.at - x.since));
    };
    return [
      el('dl', 'facts', line('Configuration', x.sync), line('Connected', since), line('Region', regionName(x.region)),
        line('Takes in', got), line('Latency p50', p50), line('Latency p99', p99)),
      ...(x.words ? [el('h3', '', 'In its own words'), el('p', 'words block', x.words)] : []),
    ];
  }

  /** @returns {Node} */
  function closeIcon() {
    const holder = /** @type {Element} */ ($('theme').firstElementChild).cloneNode(true);
    /** @type {Element} */ (/** @type {Element} */ (holder).firstElementChild).setAttribute('href', '#i-close');
    return holder;
  }

  return {
    /** @param {Snapshot} s @param {boolean} may */
    snapshot(s, may) {
      now = s;
      mayAct = may;
      const focused = panel.contains(document.activeElement);
      draw();
      if (focused && kind) $('inspect-title').focus();
    },
    /** @param {Tick} t */
    tick(t) { if (kind) update(t); },
    /** @param {string} k @param {string} i */
    show(k, i) {
      kind = k; id = i;
      draw();
      if (kind) $('inspect-title').focus({ preventScroll: innerWidth > 900 });
    },
  };
}
