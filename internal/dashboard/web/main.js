// Puts the page's parts together.
import { $, text, attr, icon, say, el } from './dom.js';
import { age } from './model.js';
import { live } from './live.js';
import { map } from './map.js';
import { bands } from './bands.js';
import { matrix } from './matrix.js';
import { history } from './history.js';
import { side } from './side.js';
import { stats } from './stats.js';
import { banners } from './banners.js';
import { inspector } from './inspect.js';

/** @typedef {import('./wire').Snapshot} Snapshot */
/** @typedef {import('./wire').Tick} Tick */

/** @type {Snapshot|null} */ let now = null;
/** @type {Tick|null} */ let lastTick = null;
/** @type {HTMLElement|null} */ let cameFrom = null;
let chosen = { kind: '', id: '' };
let mayAct = false;

const theMap = map({ select });
const theBands = bands({
  anchors: theMap.anchors,
  regions: () => now?.regions ?? [],
  nameOf: (t) => (t.servers.length === 1 ? now?.servers[t.servers[0]].name : now?.servers[t.servers[0]]?.region) ?? '',
});
const theMatrix = matrix();
const theHistory = history();
const theSide = side({ select, point: theHistory.point });
const theStats = stats();
const theInspector = inspector(() => select('', ''));
const theBanners = banners();

/** @param {'server'|'entry'|''} kind @param {string} id */
function select(kind, id) {
  const same = kind && kind === chosen.kind && id === chosen.id;
  if (same) { kind = ''; id = ''; }
  if (kind) cameFrom = /** @type {HTMLElement} */ (document.activeElement);
  chosen = { kind, id };
  theMap.mark(kind, id);
  theBands.layout();
  pickBands();
  theInspector.show(kind, id);
  if (lastTick) theInspector.tick(lastTick);
  if (!kind && cameFrom?.isConnected) cameFrom.focus();
}

function pickBands() {
  if (!now) return;
  const server = chosen.kind === 'server' ? now.servers.findIndex((s) => s.id === chosen.id) : -1;
  const entry = chosen.kind === 'entry' ? now.entries.find((e) => e.id === chosen.id) : null;
  theBands.show(entry ? now.regions.indexOf(entry.region) : -1, server);
}

/** @param {Snapshot} s */
function snapshot(s) {
  announce(now, s);
  now = s;
  lastTick = null;
  document.title = `${s.problems.length ? `(${s.problems.length}) ` : ''}${s.service} – tailxds`;
  text($('tailnet'), s.tailnet);
  $('services').replaceChildren(...s.services.map((service) => {
    const a = el('a', '', service.name, ...(service.known && !service.serving ? [el('span', 'down', ' nobody serves')] : []));
    a.setAttribute('href', `?service=${encodeURIComponent(service.name)}`);
    if (service.name === s.service) a.setAttribute('aria-current', 'page');
    return a;
  }));
  $('empty').hidden = s.servers.length > 0;
  $('alarm').hidden = !s.problems.length;
  text($('alarm'), s.problems.length === 1 ? '1 problem' : `${s.problems.length} problems`);
  theBanners.snapshot(s, mayAct);
  theMap.snapshot(s);
  theMatrix.snapshot(s);
  theHistory.snapshot(s);
  theSide.snapshot(s);
  theStats.snapshot(s);
  theInspector.snapshot(s, mayAct);
  theMap.mark(chosen.kind, chosen.id);
  theBands.layout();
  pickBands();
}

/** @param {Tick} t */
function tick(t) {
  const s = now;
  if (!s || t.servers.length !== s.servers.length || t.entries.length !== s.entries.length) return;
  lastTick = t;
  theMap.tick(t);
  theBands.draw(t.flows);
  theMatrix.tick(t);
  theInspector.tick(t);
  theSide.clock(t.at);
  theHistory.clock(t.at);
  theStats.tick(t);
  theBanners.tick(t);
}

/** Says aloud what changed; the numbers of each second are not said.
 * @param {Snapshot|null} before @param {Snapshot} s */
function announce(before, s) {
  if (!before) return;
  const newest = s.changes[0];
  if (newest && newest.id !== before.changes[0]?.id) say(`${newest.name} ${newest.text}. ${newest.effect}`);
  else if (s.problems.length !== before.problems.length) say(`${s.problems.length} problems`);
}

live({
  snapshot, tick,
  history(h) { theHistory.history(h); theStats.history(h); },
  viewer(v) {
    mayAct = v.role === 'operate';
    text($('viewer'), mayAct ? v.name : `${v.name} (view only)`);
    if (now) snapshot(now);
  },
  liveness(state, ms) {
    const words = { live: 'Live', connecting: 'Connecting', refused: 'Not allowed', stale: `${age(ms)} old` }[state];
    attr($('live'), 'data-state', state);
    text($('live-text'), words);
    attr(document.body, 'data-live', state);
    theBanners.liveness(state, ms);
  },
});

for (const radio of /** @type {NodeListOf<HTMLInputElement>} */ (document.querySelectorAll('input[name=view]'))) {
  radio.addEventListener('change', () => {
    $('map').hidden = radio.value !== 'flow';
    $('matrix').hidden = radio.value !== 'matrix';
    theBands.legend(radio.value === 'flow');
    if (lastTick) theMatrix.tick(lastTick);
    theBands.layout();
  });
}

document.addEventListener('keydown', (e) => {
  if (e.key !== 'Escape' || $('ask').open) return;
  if (document.activeElement === $('filter') && $('filter').value) return;
  if (chosen.kind) select('', '');
});

const themes = ['auto', 'light', 'dark'];
function showTheme() {
  const theme = document.documentElement.dataset.theme ?? 'auto';
  icon($('theme').firstElementChild, theme);
  text($('theme').lastElementChild, `Theme: ${theme === 'auto' ? 'as the system' : theme}`);
}
$('theme').addEventListener('click', () => {
  const next = themes[(themes.indexOf(document.documentElement.dataset.theme ?? 'auto') + 1) % 3];
  if (next === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try { localStorage.setItem('theme', next); } catch { /* storage is off */ }
  showTheme();
  theBands.layout();
});
showTheme();
