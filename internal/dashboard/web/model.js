// Pure: numbers to words, and what the numbers mean.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

/** @param {number} n */
export const rate = (n) => (n < 0 ? '–' : n >= 9.95 || n === 0 ? whole.format(n) : n.toFixed(1));

/** @param {number} share */
export const percent = (share) => (share < 0 ? '–' : (share * 100).toFixed(1));

/** @param {number} points */
export const signed = (points) => (points < 0 ? '−' : '+') + Math.abs(points).toFixed(1);

/** @param {number} ms */
export const millis = (ms) => (ms < 0 ? '–' : ms >= 9.95 ? whole.format(ms) : ms.toFixed(1));

/** How long ago, in one unit. @param {number} ms */
export function age(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 2 * 86400) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

/** A time of day, with the day where that is not today. @param {number} at @param {number} now */
export function clock(at, now) {
  const then = new Date(at);
  const time = then.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });
  return then.toDateString() === new Date(now).toDateString() ? time : `${then.toLocaleDateString('en-CA')} ${time}`;
}

/** Whether a server's share is off: by a point, by a tenth of itself, and by more than chance.
 * @param {number} observed @param {number} expected @param {number} requests that were counted */
export function off(observed, expected, requests) {
  if (observed < 0 || expected < 0) return false;
  const gap = Math.abs(observed - expected);
  const chance = Math.sqrt((expected * (1 - expected)) / Math.max(requests, 1));
  return gap > 0.01 && gap > 0.1 * expected && gap > 4 * chance;
}

/** What the Envoys make of a server's health, in words and as a sign.
 * @param {number} healthy @param {number} judges @returns {{ sign: 'well'|'some'|'sick'|'unknown', words: string }} */
export function health(healthy, judges) {
  if (judges <= 0) return { sign: 'unknown', words: 'no Envoy says' };
  const sick = judges - healthy;
  if (!sick) return { sign: 'well', words: `${judges} of ${judges} say healthy` };
  return { sign: healthy ? 'some' : 'sick', words: `${sick} of ${judges} say unhealthy` };
}

/** @param {string} region */
export const regionName = (region) => region || 'no region';

/** @param {number} n @param {string} one */
export const count = (n, one) => `${n} ${one}${n === 1 ? '' : 's'}`;

/** @template T @param {T[]} items @param {(item: T) => number} value */
export const sum = (items, value) => items.reduce((total, item) => total + Math.max(value(item), 0), 0);

/** What is known of all of them together: a figure below 0 is not known, and nothing is if none is.
 * @template T @param {T[]} items @param {(item: T) => number} value */
export const total = (items, value) => (items.some((item) => value(item) >= 0) ? sum(items, value) : -1);

/** A round number not below n. @param {number} n */
export function nice(n) {
  const ten = 10 ** Math.floor(Math.log10(Math.max(n, 1)));
  return (n <= ten ? 1 : n <= 2 * ten ? 2 : n <= 5 * ten ? 5 : 10) * ten;
}
