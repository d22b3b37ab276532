// What each region served over the last minutes, how long that took, and what
// changed meanwhile, on one axis of time.
import { $, svg, el, attr } from './dom.js';
import { millis, nice, regionName } from './model.js';

/** @typedef {import('./wire').Snapshot} Snapshot */
/** @typedef {import('./wire').History} History */

const top = 18, bottom = 18, right = 132, between = 16, latency = 64;

export function history() {
  const box = $('chart');
  const drawing = svg('svg', { class: 'areas', role: 'img' });
  const labels = el('div', 'area-labels');
  labels.setAttribute('aria-hidden', 'true');
  box.append(drawing, labels);
  /** @type {Snapshot} */ let now;
  /** @type {History|null} */ let past = null;
  let at = 0;

  function draw() {
    if (!now || !past || !past.shares.length) return;
    const { width, height } = box.getBoundingClientRect();
    if (!width) return;
    const plot = width - right, floor = height - bottom;
    const deep = floor - top - between - latency;
    const whole = past.step * past.shares.length;
    const end = Math.max(at, past.start + whole);
    const x = (/** @type {number} */ ms) => plot - ((end - ms) / whole) * plot;
    attr(drawing, 'viewBox', `0 0 ${width} ${height}`);
    const parts = [
      ...areas(past, x, deep),
      ...lines(past, x, floor, plot),
      ...axis(whole, plot, height),
      ...markers(x, plot, floor),
    ];
    drawing.replaceChildren(...parts);
  }

  /** A stack of shares, broken where nothing was measured.
   * @param {History} h @param {(ms: number) => number} x @param {number} deep */
  function areas(h, x, deep) {
    const paths = h.regions.map(() => '');
    const at = (/** @type {number} */ k) => x(h.start + k * h.step);
    for (let k = 0; k < h.shares.length; k++) {
      if (!h.shares[k].length) continue;
      const from = k;
      while (k + 1 < h.shares.length && h.shares[k + 1].length) k++;
      const base = new Array(k - from + 1).fill(0);
      h.regions.forEach((_, r) => {
        let upper = '', lower = '';
        for (let n = from; n <= k; n++) {
          const y0 = top + (deep * base[n - from]) / 1000;
          base[n - from] += h.shares[n][r];
          const y1 = top + (deep * base[n - from]) / 1000;
          upper += `${upper ? 'L' : 'M'}${at(n).toFixed(1)} ${y0.toFixed(1)}`;
          lower = `L${at(n).toFixed(1)} ${y1.toFixed(1)}` + lower;
          if (n < k) continue;
          const end = at(n + 1).toFixed(1); // the last step lasts, too
          upper += `L${end} ${y0.toFixed(1)}`;
          lower = `L${end} ${y1.toFixed(1)}` + lower;
        }
        paths[r] += upper + lower + 'Z';
      });
    }
    label(h, deep);
    return h.regions.map((region, r) => svg('path', { d: paths[r], class: 'area', 'data-region': hue(region) }));
  }

  /** @param {string} region */
  const hue = (region) => Math.max(now.regions.indexOf(region), 0) % 8;

  /** The last shares and latency, beside where they end. @param {History} h @param {number} deep */
  function label(h, deep) {
    const last = h.shares.findLast((row) => row.length) ?? [];
    let y = top - 8, base = 0;
    const places = h.regions.flatMap((region, r) => {
      if (!last.length) return [];
      y = Math.max(top + (deep * (base + last[r] / 2)) / 1000, y + 15);
      base += last[r];
      return [{ name: regionName(region), region: String(hue(region)), y, value: `${Math.round(last[r] / 10)} %` }];
    });
    const measured = h.latency.findLast(([p50]) => p50 >= 0);
    const floor = top + deep + between;
    if (measured) {
      places.push({ name: 'p99', region: 'p99', y: floor + latency / 2 - 9, value: `${millis(measured[1])} ms` });
      places.push({ name: 'p50', region: 'p50', y: floor + latency / 2 + 9, value: `${millis(measured[0])} ms` });
    }
    attr(drawing, 'aria-label', places.length ? places.map((p) => `${p.name} ${p.value}`).join(', ') : 'Nothing was measured yet');
    labels.replaceChildren(...places.map((p) => {
      const label = el('span', '', p.name, el('b', '', p.value));
      label.dataset.region = p.region;
      label.style.setProperty('--y', `${p.y}px`);
      return label;
    }));
  }

  /** @param {History} h @param {(ms: number) => number} x @param {number} floor @param {number} plot */
  function lines(h, x, floor, plot) {
    const most = nice(Math.max(...h.latency.map(([, p99]) => p99), 0.1) * 10) / 10;
    const y = (/** @type {number} */ ms) => (floor - (ms / most) * (latency - 8)).toFixed(1);
    const paths = ['', ''];
    let broken = true;
    h.latency.forEach((both, k) => {
      if (both[0] < 0) { broken = true; return; }
      both.forEach((ms, i) => { paths[i] += `${broken ? 'M' : 'L'}${x(h.start + k * h.step).toFixed(1)} ${y(ms)}`; });
      broken = false;
    });
    const scale = svg('text', { x: 2, y: floor - latency + 5, class: 'axis' });
    scale.textContent = `${millis(most)} ms`;
    return [
      svg('path', { d: `M0 ${floor}H${plot}`, class: 'floor' }),
      svg('path', { d: paths[0], class: 'line p50' }), svg('path', { d: paths[1], class: 'line p99' }), scale,
    ];
  }

  /** @param {number} whole @param {number} plot @param {number} height */
  function axis(whole, plot, height) {
    const minutes = Math.round(whole / 60000);
    const marks = plot < 320 ? [minutes] : [minutes, Math.round((minutes * 2) / 3), Math.round(minutes / 3)];
    return [...marks, 0].map((m) => {
      const px = plot - ((m * 60000) / whole) * plot;
      const mark = svg('text', { x: Math.max(px, 0), y: height - 4, class: 'axis', 'text-anchor': !m ? 'end' : px < 20 ? 'start' : 'middle' });
      mark.textContent = m ? `−${m} min` : 'now';
      return mark;
    });
  }

  /** @param {(ms: number) => number} x @param {number} plot @param {number} floor */
  function markers(x, plot, floor) {
    let previous = -99;
    return [...now.changes].reverse().flatMap((change) => {
      const px = Math.min(x(change.at), plot);
      if (px < 0) return [];
      const shown = Math.min(Math.max(px, previous + 13), plot + 100);
      previous = shown;
      const group = svg('g', { class: 'marker', 'data-kind': change.kind, 'data-id': change.id });
      group.append(
        svg('path', { d: `M${px.toFixed(1)} ${top}V${floor}M${shown.toFixed(1)} 13L${px.toFixed(1)} ${top}` }),
        svg('use', { href: '#i-' + ($('i-' + change.kind) ? change.kind : 'other'), x: shown - 5.5, y: 1, width: 11, height: 11 }),
      );
      return [group];
    });
  }

  new ResizeObserver(draw).observe(box);
  let drawn = 0;

  return {
    /** @param {Snapshot} s */
    snapshot(s) {
      now = s;
      box.style.setProperty('--rows', String(s.regions.length));
      draw();
    },
    /** @param {History} h */
    history(h) {
      past = h;
      draw();
    },
    /** Time passes, though nothing else may. @param {number} t */
    clock(t) {
      at = t;
      if (Math.abs(t - drawn) < 5000) return;
      drawn = t;
      draw();
    },
    /** Picks out the mark of a change. @param {string} id */
    point(id) {
      for (const marker of drawing.querySelectorAll('.marker')) marker.classList.toggle('lit', marker.getAttribute('data-id') === id);
    },
  };
}
