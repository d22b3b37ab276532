// The stream of events, and how old the last one is.

/** @typedef {import('./wire').Snapshot} Snapshot */
/** @typedef {import('./wire').Tick} Tick */
/** @typedef {import('./wire').History} History */
/** @typedef {import('./wire').Viewer} Viewer */
/** @typedef {'connecting'|'live'|'stale'|'refused'} Liveness */

/** Where the page's own server answers. @param {string} path */
export const at = (path) => new URL('../../' + path, import.meta.url);

/** @param {{ viewer: (v: Viewer) => void, snapshot: (s: Snapshot) => void, tick: (t: Tick) => void,
 *   history: (h: History) => void, liveness: (l: Liveness, age: number) => void }} on */
export function live(on) {
  const url = at('live');
  url.searchParams.set('service', new URLSearchParams(location.search).get('service') ?? '');
  /** @type {EventSource|null} */
  let source = null;
  let heard = 0, refused = false, page = '';

  const open = () => {
    if (source) return;
    source = new EventSource(url);
    const listen = (/** @type {string} */ name, /** @type {(data: any) => void} */ told) => {
      source?.addEventListener(name, (e) => {
        if (name !== 'viewer') heard = performance.now();
        refused = false;
        told(JSON.parse(e.data));
      });
    };
    listen('viewer', on.viewer);
    listen('snapshot', (s) => {
      if (page && page !== s.assets) return location.reload(); // another build answers now
      page = s.assets;
      on.snapshot(s);
    });
    listen('history', on.history);
    listen('tick', (t) => { on.tick(t); check(); });
    // An EventSource tries again by itself, except after an HTTP error.
    source.addEventListener('error', () => {
      if (source?.readyState !== EventSource.CLOSED) return;
      source = null;
      whyClosed();
      setTimeout(open, 2000 + Math.random() * 2000);
    });
  };
  const close = () => { source?.close(); source = null; };

  // A stream's status can't be read; another request's can.
  async function whyClosed() {
    try {
      refused = (await fetch(at('preview'))).status === 403;
    } catch { /* nobody answers: that is no refusal */ }
    check();
  }

  // A hidden page holds no connection: browsers allow six a host over HTTP/1.1.
  document.addEventListener('visibilitychange', () => (document.hidden ? close() : open()));
  if (!document.hidden) open();

  function check() {
    if (document.hidden) return;
    const age = heard ? performance.now() - heard : 0;
    on.liveness(refused ? 'refused' : !heard ? 'connecting' : age < 3500 ? 'live' : 'stale', age);
  }
  setInterval(check, 500);
}
