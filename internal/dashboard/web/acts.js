// What an operator can do, each with a question before.
import { $, el, text, say } from './dom.js';
import { percent, regionName, clock } from './model.js';
import { at } from './live.js';

/** @typedef {import('./wire').Action} Action */
/** @typedef {import('./wire').Server} Server */
/** @typedef {import('./wire').Preview} Preview */

/** Asks before it does; says what happens next. Failures stay in the dialog.
 * @param {string} title @param {Node[]} body @param {string} verb @param {() => Promise<void>} run */
function ask(title, body, verb, run) {
  const dialog = /** @type {HTMLDialogElement} */ ($('ask'));
  text($('ask-title'), title);
  text($('ask-do'), verb);
  text($('ask-error'), '');
  $('ask-body').replaceChildren(...body);
  $('ask-do').onclick = async (/** @type {Event} */ e) => {
    e.preventDefault();
    $('ask-do').disabled = true;
    try {
      await run();
      dialog.close();
    } catch (error) {
      text($('ask-error'), error instanceof Error ? error.message : String(error));
    } finally {
      $('ask-do').disabled = false;
    }
  };
  dialog.showModal();
}

/** @param {Partial<Action> & { act: string }} what */
async function post({ act, ...what }) {
  const answer = await fetch(at('act/' + act), {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(what),
  });
  if (!answer.ok) throw new Error((await answer.text()).trim() || answer.statusText);
}

/** The expected shares by region before and after, once they are known.
 * @param {{ act: string, service?: string, device?: string }} what */
function preview(what) {
  const table = el('table', 'preview', el('caption', '', 'Expected share of requests'));
  const stays = el('p', 'stays');
  stays.hidden = true;
  const url = at('preview');
  for (const [k, v] of Object.entries(what)) url.searchParams.set(k, v);
  fetch(url).then((answer) => answer.json()).then((/** @type {Preview} */ p) => {
    p.regions.forEach((region, r) => {
      const th = el('th', '', regionName(region));
      th.setAttribute('scope', 'row');
      table.append(el('tr', '', th, el('td', 'num', `${percent(p.before[r])} %`), el('td', '', '→'), el('td', 'num strong', `${percent(p.after[r])} %`)));
    });
    text(stays, p.stays);
    stays.hidden = !p.stays;
  }).catch(() => text(/** @type {HTMLElement} */ (table.caption), 'What the shares will be could not be learnt.'));
  return [table, stays];
}

/** @param {import('./wire').Held} h */
export function askAccept(h) {
  ask(`Let through what is held of ${h.service}?`, [
    el('p', '', `${h.names.length === 1 ? 'One server stops' : `${h.names.length} servers stop`} getting requests at once. They come back when the tailnet lists them again.`),
    el('p', 'names', h.names.join('  ')),
    ...preview({ act: 'accept', service: h.service }),
  ], 'Accept the loss', async () => {
    await post({ act: 'accept', service: h.service });
    say(`The loss of ${h.service} is accepted`);
  });
}

const whiles = [[15, '15 minutes'], [30, '30 minutes'], [60, '1 hour'], [480, '8 hours'], [0, 'until it is restored']];

/** @param {Server} x @param {string} service @param {string} viewer */
export function askDrain(x, service, viewer) {
  const choice = /** @type {HTMLSelectElement} */ (el('select', '', ...whiles.map(([minutes, words]) => {
    const option = /** @type {HTMLOptionElement} */ (el('option', '', String(words)));
    option.value = String(minutes);
    return option;
  })));
  choice.id = 'ask-while';
  choice.value = '30';
  const end = el('span', 'sub');
  const tell = () => text(end, Number(choice.value) ? `until ${clock(Date.now() + Number(choice.value) * 60_000, Date.now())}` : '');
  choice.addEventListener('change', tell);
  tell();
  const label = el('label', '', 'For ');
  label.setAttribute('for', choice.id);
  ask(`Drain ${x.name}?`, [
    el('p', '', 'It gets no new requests, in no service; those in flight end. Its share goes to the others.'),
    el('p', 'while', label, choice, end),
    ...preview({ act: 'drain', service, device: x.device }),
    el('p', 'sub', `Signed as ${viewer}.`),
  ], 'Drain', async () => {
    await post({ act: 'drain', device: x.device, minutes: Number(choice.value) });
    say(`${x.name} is drained`);
  });
}

/** @param {Server} x @param {string} service @param {string} viewer */
export function askRestore(x, service, viewer) {
  ask(`Restore ${x.name}?`, [
    el('p', '', 'It gets requests again, as its tags and grants say.'),
    ...preview({ act: 'restore', service, device: x.device }),
    el('p', 'sub', `Signed as ${viewer}.`),
  ], 'Restore', async () => {
    await post({ act: 'restore', device: x.device });
    say(`${x.name} is restored`);
  });
}
