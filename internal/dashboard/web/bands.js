// Bands as wide as what flows in them, and dots that run along: one dot is a
// fixed number of requests, so more dots are more requests.
import { $, svg, attr, text } from './dom.js';
import { nice, rate, regionName } from './model.js';

/** @typedef {{ node: HTMLElement, servers: number[] }} Target */
/** @typedef {{ r: number, to: number, y0: number, y1: number, value: number, owed: number, path: SVGElement }} Band */

const travel = 1700; // ms for a dot to cross
const dotsASecond = 60;
const frameEvery = 30; // ms: half of the frames are enough for dots

/** @param {{ anchors: () => { from: HTMLElement[], to: Target[] }, regions: () => string[], nameOf: (t: Target) => string }} page */
export function bands(page) {
  const box = $('bands');
  const drawing = /** @type {SVGSVGElement} */ (box.querySelector('svg'));
  const canvas = /** @type {HTMLCanvasElement} */ (box.querySelector('canvas'));
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'));
  const still = matchMedia('(prefers-reduced-motion: reduce)');
  /** @type {Map<string, Band>} */ const all = new Map();
  /** @type {{ band: Band, start: number, lane: number }[]} */ let dots = [];
  /** @type {{ y: number, room: number }[]} */ let from = [];
  /** @type {{ y: number, room: number, target: Target }[]} */ let to = [];
  /** @type {string[]} */ let colors = [];
  /** @type {number[][]} */ let flows = [];
  let width = 0, height = 0, perPixel = 0, perDot = 1, running = 0, last = 0, inView = true;
  /** @type {(b: Band) => boolean} */ let lit = () => true;
  let anyLit = false;

  function layout() {
    const { from: sources, to: targets } = page.anchors();
    const frame = box.getBoundingClientRect();
    width = frame.width; height = frame.height;
    if (!width || !height) return;
    const place = (/** @type {HTMLElement} */ node) => {
      const r = node.getBoundingClientRect();
      return { y: r.top - frame.top + r.height / 2, room: r.height };
    };
    from = sources.map(place);
    to = targets.map((target) => ({ ...place(target.node), target }));
    attr(drawing, 'viewBox', `0 0 ${width} ${height}`);
    const dpr = Math.min(devicePixelRatio || 1, 2);
    canvas.width = Math.round(width * dpr);
    canvas.height = Math.round(height * dpr);
    pen.setTransform(dpr, 0, 0, dpr, 0, 0);
    perPixel = 0;
    colors = [];
    draw(flows);
  }

  /** @param {number[][]} next requests/s, a row a region, a column a server */
  function draw(next) {
    flows = next;
    if (!width || !from.length || !flows.length) return;
    const value = from.map((_, r) => to.map(({ target }) => target.servers.reduce((sum, i) => sum + Math.max(flows[r]?.[i] ?? 0, 0), 0)));
    const out = value.map((row) => row.reduce((a, b) => a + b, 0));
    const into = to.map((_, d) => value.reduce((sum, row) => sum + row[d], 0));
    const total = out.reduce((a, b) => a + b, 0);

    // One scale for both sides; it moves only when it must, so that nothing breathes.
    // What a filter hides has no room, and gets nothing.
    const each = (/** @type {number} */ v, /** @type {number} */ room) => (v > 0 && room > 0 ? v / room : 0);
    const fits = Math.max(...out.map((v, r) => each(v, from[r].room * 0.82)), ...into.map((v, d) => each(v, to[d].room * 0.72)), 1e-9);
    if (fits > perPixel || fits < perPixel * 0.7) perPixel = fits * 1.06;
    const dotWorth = nice(total / dotsASecond);
    if (dotWorth !== perDot) { perDot = dotWorth; legend(shown); }

    const leave = out.map((v, r) => from[r].y - v / perPixel / 2);
    const arrive = into.map((v, d) => to[d].y - v / perPixel / 2);
    const seen = new Set();
    value.forEach((row, r) => row.forEach((v, d) => {
      if (v <= 0) return;
      const thick = v / perPixel;
      const key = `${r}/${to[d].target.servers[0]}`;
      seen.add(key);
      let band = all.get(key);
      if (!band) {
        band = { r, to: d, y0: 0, y1: 0, value: 0, owed: Math.random(), path: svg('path', { class: 'band', 'data-region': r % 8 }) };
        const made = band;
        band.path.addEventListener('pointerenter', () => tip(made));
        band.path.addEventListener('pointerleave', () => { $('tip').hidden = true; });
        all.set(key, band);
        drawing.append(band.path);
      }
      band.to = d;
      band.value = v;
      band.y0 = leave[r] + thick / 2;
      band.y1 = arrive[d] + thick / 2;
      attr(band.path, 'd', ribbon(leave[r], arrive[d], Math.max(thick, 0.6)));
      leave[r] += thick;
      arrive[d] += thick;
    }));
    for (const [key, band] of all) {
      if (seen.has(key)) continue;
      band.path.remove();
      all.delete(key);
      dots = dots.filter((dot) => dot.band !== band);
    }
    light();
    if (!colors.length && all.size) colors = from.map((_, r) => paint(r));
    run();
  }

  /** A region's colour; read from a band, since a custom property still says light-dark(). @param {number} r */
  function paint(r) {
    const band = [...all.values()].find((b) => b.r === r);
    return band ? getComputedStyle(band.path).fill : 'gray';
  }

  let shown = true;
  /** @param {boolean} flow */
  function legend(flow) {
    shown = flow;
    text($('legend'), !flow ? 'requests a second' : still.matches ? '' : `1 dot = ${rate(perDot)} requests`);
  }

  /** @param {number} y0 @param {number} y1 @param {number} thick */
  function ribbon(y0, y1, thick) {
    const m = (width / 2).toFixed(1), w = width.toFixed(1);
    const a = y0.toFixed(1), b = y1.toFixed(1), c = (y1 + thick).toFixed(1), d = (y0 + thick).toFixed(1);
    return `M0 ${a}C${m} ${a} ${m} ${b} ${w} ${b}L${w} ${c}C${m} ${c} ${m} ${d} 0 ${d}Z`;
  }

  /** @param {Band} band */
  function tip(band) {
    const node = $('tip');
    text(node, `${regionName(page.regions()[band.r])} → ${regionName(page.nameOf(to[band.to].target))}  ${rate(band.value)} /s`);
    node.hidden = false;
    node.style.setProperty('--y', `${(band.y0 + band.y1) / 2}px`);
  }

  function light() {
    for (const band of all.values()) band.path.classList.toggle('lit', anyLit && lit(band));
    drawing.classList.toggle('dim', anyLit);
  }

  /** @param {number} now */
  function frame(now) {
    running = 0;
    if (!moves()) return pen.clearRect(0, 0, width, height);
    if (now - last < frameEvery) return run();
    const passed = Math.min(now - last, 100);
    last = now;
    for (const band of all.values()) {
      band.owed += (band.value / perDot) * (passed / 1000);
      while (band.owed >= 1) {
        band.owed -= 1;
        dots.push({ band, start: now - Math.random() * passed, lane: (Math.random() - 0.5) * 0.6 * (band.value / perPixel) });
      }
    }
    dots = dots.filter((dot) => now - dot.start < travel);
    pen.clearRect(0, 0, width, height);
    for (let r = 0; r < colors.length; r++) {
      pen.fillStyle = colors[r];
      pen.beginPath();
      for (const { band, start, lane } of dots) {
        if (band.r !== r || (anyLit && !lit(band))) continue;
        const t = (now - start) / travel, back = 1 - t;
        const x = width * (1.5 * back * back * t + 1.5 * back * t * t + t * t * t);
        const y = band.y0 + (band.y1 - band.y0) * t * t * (3 - 2 * t) + lane;
        pen.moveTo(x + 1.7, y);
        pen.arc(x, y, 1.7, 0, 6.2832);
      }
      pen.fill();
    }
    run();
  }

  /** Nothing runs for those who want it still, nor for what nobody sees. */
  const moves = () => !still.matches && inView && width > 0 && all.size > 0;

  function run() {
    if (!running && moves()) running = requestAnimationFrame(frame);
  }

  new ResizeObserver(layout).observe(box);
  new IntersectionObserver(([seen]) => { inView = seen.isIntersecting; run(); }).observe(box);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', layout);
  still.addEventListener('change', run);
  document.addEventListener('relayout', layout);

  return {
    layout, draw, legend,
    /** Picks out the bands of a region or a server. @param {number} region @param {number} server */
    show(region, server) {
      anyLit = region >= 0 || server >= 0;
      lit = (b) => (region < 0 || b.r === region) && (server < 0 || Boolean(to[b.to]?.target.servers.includes(server)));
      light();
    },
    dots: () => dots.length,
  };
}
