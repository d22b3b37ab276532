// Callers at the left and servers at the right, in groups by region.
import { $, el, stamp, text, nameIn, attr, icon, keyed, walk, say } from './dom.js';
import { rate, percent, signed, millis, off, sum, total, health, regionName } from './model.js';

/** @typedef {import('./wire').Snapshot} Snapshot */
/** @typedef {import('./wire').Tick} Tick */
/** @typedef {import('./wire').Server} Server */
/** @typedef {{ select: (kind: 'server'|'entry'|'', id: string) => void }} Do */

/** How much is shown of each server: a row, a narrow row, or a tile.
 * @param {number} servers @returns {'rows'|'narrow'|'tiles'} */
const detail = (servers) => (servers <= 16 ? 'rows' : servers <= 40 ? 'narrow' : 'tiles');

/** @param {Do} act */
export function map(act) {
  const walkServers = walk($('servers'), 'button.name, button.tile');
  const walkCallers = walk($('callers'), 'button.name');
  /** @type {{ row: any, i: number }[]} */ let rows = [];
  /** @type {{ row: any, i: number }[]} */ let tiles = [];
  /** @type {{ row: any, i: number }[]} */ let callers = [];
  /** @type {{ group: any, region: string, servers: number[], entries: number[] }[]} */ let groups = [];
  /** @type {any[]} */ let far = [];
  /** @type {any[]} */ let callerGroups = [];
  /** @type {Snapshot} */ let now;
  /** @type {Tick|null} */ let last = null;
  let wanted = '';
  let level = 'rows';
  /** @type {Set<string>} */ let attention = new Set();

  /** @param {Server} s */
  const matches = (s) => !wanted || `${s.name} ${s.region} ${s.zone} ${s.state} ${s.id} ${s.tags.join(' ')}`.toLowerCase().includes(wanted);

  /** @param {'server'|'entry'} kind @param {string} part */
  const button = (kind, part) => (/** @type {any} */ item) => {
    const row = stamp(kind === 'entry' ? 't-caller' : part === 'tile' ? 't-tile' : 't-server');
    row.parts[part].addEventListener('click', () => act.select(kind, item.id));
    return row;
  };

  /** @param {Snapshot} s */
  function snapshot(s) {
    now = s;
    level = detail(s.servers.length);
    attention = new Set(s.problems.filter((p) => p.about === 'server').map((p) => p.id));
    $('map').dataset.detail = level;
    groups = s.regions.map((region) => ({
      group: null, region,
      servers: s.servers.flatMap((x, i) => (x.region === region && matches(x) ? [i] : [])),
      entries: s.entries.flatMap((x, i) => (x.region === region ? [i] : [])),
    }));
    rows = []; tiles = []; callers = [];

    callerGroups = keyed($('callers'), groups, (g) => g.region, () => stamp('t-caller-group'), (group, g, r) => {
      attr(group.node, 'data-region', r % 8);
      text(group.parts.title, regionName(g.region));
      text(group.parts.caption, `Envoys in ${regionName(g.region)}`);
      const shown = level === 'tiles' ? g.entries.filter((i) => s.entries[i].sync !== 'in sync') : g.entries;
      keyed(group.parts.rows, shown, (i) => s.entries[i].id, (i) => button('entry', 'name')(s.entries[i]), (row, i) => {
        const entry = s.entries[i];
        nameIn(row.parts.label, entry.name);
        text(row.parts.state, `, ${entry.sync}`);
        icon(row.parts.icon, entry.sync);
        attr(row.node, 'data-sync', entry.sync);
        attr(row.node, 'data-name', entry.name);
        attr(row.node, 'data-id', entry.id);
        callers.push({ row, i });
      });
    });

    keyed($('servers'), groups, (g) => g.region, () => {
      const group = stamp('t-server-group');
      return group;
    }, (group, g, r) => {
      g.group = group;
      attr(group.node, 'data-region', r % 8);
      attr(group.node, 'hidden', g.servers.length ? null : '');
      text(group.parts.title, regionName(g.region));
      text(group.parts.caption, `Servers in ${regionName(g.region)}`);
      const asTiles = level === 'tiles' && !wanted;
      attr(group.parts.table, 'hidden', asTiles ? '' : null);
      attr(group.parts.tiles, 'hidden', asTiles ? null : '');
      keyed(group.parts.rows, asTiles ? [] : g.servers, (i) => s.servers[i].id, (i) => button('server', 'name')(s.servers[i]), (row, i) => {
        const server = s.servers[i];
        nameIn(row.parts.label, server.name);
        text(row.parts.weight, server.state === 'drained' ? '0' : String(server.weight));
        attr(row.node, 'data-state', server.state);
        attr(row.node, 'data-name', server.name);
        attr(row.node, 'data-id', server.id);
        rows.push({ row, i });
      });
      keyed(group.parts.tiles, asTiles ? g.servers : [], (i) => s.servers[i].id, (i) => button('server', 'tile')(s.servers[i]), (tile, i) => {
        const server = s.servers[i];
        attr(tile.parts.tile, 'data-state', server.state);
        attr(tile.parts.tile, 'data-name', server.name);
        attr(tile.parts.tile, 'data-id', server.id);
        tiles.push({ row: tile, i });
      });
    });

    far = keyed($('far'), groups, (g) => g.region, () => {
      const title = el('b'), share = el('span');
      return { node: el('div', '', el('i', 'edge'), title, share), title, share };
    }, (chip, g, r) => {
      attr(chip.node, 'data-region', r % 8);
      text(chip.title, regionName(g.region));
    });
    walkServers();
    walkCallers();
  }

  /** A server's state and health in words, its sign, and whether its share is off.
   * @param {Server} server @param {Tick} t @param {number} i */
  function judge(server, t, i) {
    const [, , share, expected, healthy, judges] = t.servers[i];
    const serves = server.state === 'serving';
    const h = health(healthy, judges);
    const ill = serves && (h.sign === 'sick' || h.sign === 'some');
    const isOff = serves && off(share, expected, (t.total[0] * t.window) / 1000);
    return {
      serves, ill, isOff, words: ill ? h.words : '',
      icon: !serves ? server.state : h.sign === 'sick' ? 'rejected' : ill || attention.has(server.id) ? 'attention' : server.held ? 'held' : 'serving',
      health: ill ? h.sign : null,
      said: `, ${server.state}${server.held ? ', held' : ''}${ill ? `, ${h.words}` : ''}${attention.has(server.id) ? ', has a problem' : ''}`,
    };
  }

  /** @param {Tick} t */
  function tick(t) {
    last = t;
    const scale = Math.max(...t.servers.map((x) => x[3]), 0.001) * 1.3;
    for (const { row, i } of rows) {
      const [requests, , share, expected] = t.servers[i];
      const server = now.servers[i];
      const j = judge(server, t, i);
      icon(row.parts.icon, j.icon === 'expired' ? 'expiring' : j.icon);
      text(row.parts.state, j.said);
      attr(row.node, 'data-health', j.health);
      attr(row.node, 'data-attention', j.icon === 'attention' || j.icon === 'held' ? '' : null);
      // Whoever gets nothing needs no bar and no share: words have that room, and are never cut.
      const idle = share <= 0.0005;
      const why = !idle ? '' : j.ill ? j.words : j.serves ? '' : [server.state, server.why].filter(Boolean).join(', ');
      text(row.parts.why, why);
      attr(row.parts.bar, 'hidden', why ? '' : null);
      attr(row.parts.cell, 'colspan', why ? 2 : null);
      attr(row.parts.sharecell, 'hidden', why ? '' : null);
      row.parts.bar.style.setProperty('--share', String(Math.min(Math.max(share, 0) / scale, 1)));
      row.parts.bar.style.setProperty('--expected', String(Math.max(expected, 0) / scale));
      text(row.parts.expected, `${percent(expected)} % expected`);
      attr(row.node, 'data-off', j.isOff ? '' : null);
      text(row.parts.share, why ? '' : percent(share) + ' %');
      text(row.parts.gap, j.isOff ? signed((share - expected) * 100) : '');
      text(row.parts.rate, j.serves || requests > 0 ? rate(requests) : '');
    }
    for (const { row, i } of tiles) {
      const server = now.servers[i];
      const j = judge(server, t, i);
      const tile = row.parts.tile;
      attr(tile, 'data-off', j.isOff ? '' : null);
      attr(tile, 'data-attention', attention.has(server.id) || server.held ? '' : null);
      attr(tile, 'data-health', j.health);
      tile.style.setProperty('--depth', (Math.max(t.servers[i][3], 0) / scale * 1.3).toFixed(2));
      attr(tile, 'title', `${server.name}${j.said}, weight ${server.weight}`);
      text(row.parts.label, `${server.name}${j.said}`);
    }
    const worst = t.entries.reduce((w, e, i) => (e[3] > (t.entries[w]?.[3] ?? -1) ? i : w), -1);
    for (const { row, i } of callers) {
      const [requests, , p50, p99] = t.entries[i];
      text(row.parts.rate, rate(requests));
      text(row.parts.p50, millis(p50));
      text(row.parts.p99, millis(p99));
      attr(row.node, 'data-worst', i === worst ? '' : null);
    }
    groups.forEach((g, r) => {
      const share = percent(t.total[0] > 0 ? sum(g.servers, (i) => t.servers[i][2]) : -1) + ' %';
      text(g.group.parts.share, share);
      text(g.group.parts.rate, rate(total(g.servers, (i) => t.servers[i][0])));
      text(g.group.parts.states, states(g.servers, t));
      text(far[r].share, share);
      const takes = total(g.entries, (i) => t.entries[i][0]);
      const parts = callerGroups[r].parts;
      text(parts.rate, rate(takes));
      const timed = g.entries.filter((i) => t.entries[i][2] >= 0 && t.entries[i][0] > 0);
      text(parts.p50, millis(timed.length ? sum(timed, (i) => t.entries[i][0] * t.entries[i][2]) / sum(timed, (i) => t.entries[i][0]) : -1));
      text(parts.p99, millis(Math.max(-1, ...g.entries.map((i) => t.entries[i][3]))));
      if (level !== 'tiles') return;
      const most = Math.max(t.entries[worst]?.[3] ?? 1, 0.001);
      const marks = (/** @type {number} */ k, /** @type {number} */ y) => g.entries.filter((i) => t.entries[i][k] >= 0).map((i) => `M${(2 + (t.entries[i][k] / most) * 206).toFixed(0)} ${y}v9`).join('');
      attr(parts.strip.children[1], 'd', marks(2, 2));
      attr(parts.strip.children[2], 'd', marks(3, 13));
    });
  }

  /** How many do not serve as they might. @param {number[]} servers @param {Tick} t */
  function states(servers, t) {
    const n = /** @type {Record<string, number>} */ ({});
    for (const i of servers) {
      const { health, serves } = judge(now.servers[i], t, i);
      const word = health === 'some' ? 'unhealthy for some' : health ? 'unhealthy' : serves ? '' : now.servers[i].state;
      if (word) n[word] = (n[word] ?? 0) + 1;
    }
    return Object.entries(n).map(([word, k]) => `${k} ${word}`).join(', ');
  }

  $('filter').addEventListener('input', () => {
    wanted = $('filter').value.trim().toLowerCase();
    if (!now) return;
    snapshot(now);
    say(`${sum(groups, (g) => g.servers.length)} servers match`);
    if (last) tick(last);
    document.dispatchEvent(new Event('relayout'));
  });

  /** @param {string} kind @param {string} id */
  function mark(kind, id) {
    for (const node of $('map').querySelectorAll('[aria-pressed=true]')) node.removeAttribute('aria-pressed');
    const where = kind === 'server' ? $('servers') : $('callers');
    const chosen = kind && where.querySelector(`[data-id="${CSS.escape(id)}"]`);
    if (!chosen) return null;
    const b = chosen.matches('button') ? chosen : chosen.querySelector('button');
    b.setAttribute('aria-pressed', 'true');
    return b;
  }

  /** What bands start and end at: regions, and servers where there is room. A
   * chosen server always has bands of its own. */
  function anchors() {
    const mini = $('far').offsetParent !== null;
    const from = callerGroups.map((g) => /** @type {HTMLElement} */ (mini ? g.node.firstElementChild : g.node));
    if (mini) return { from, to: far.map((f, r) => ({ node: f.node, servers: groups[r].servers })) };
    if (level === 'rows' || (wanted && rows.length <= 16)) return { from, to: rows.map(({ row, i }) => ({ node: row.node, servers: [i] })) };
    const alone = [...rows, ...tiles].find(({ row }) => row.node.querySelector('[aria-pressed=true]'));
    const to = groups.map((g) => ({ node: g.group.node, servers: g.servers.filter((i) => i !== alone?.i) }));
    return { from, to: alone ? [...to, { node: alone.row.node, servers: [alone.i] }] : to };
  }

  return { snapshot, tick, mark, anchors };
}
