// Owns everything that is drawn on the page. It must not know workers, requests or downloads. Labels and messages come
// from data, so they are only ever set as text.

import { counted, date, duration, integer, listed, megabytes, percent } from './format.js';

/** How many classes are shown before "Show all". */
const FEW = 8;
/** A pause that lets a screen reader hear the answer to the finished text, not to each keystroke. */
const ANNOUNCE_AFTER_MS = 700;

/** @param {string} id @returns {any} */
const element = (id) => document.getElementById(id);

const answer = element('answer');
let showAll = false;
/** @type {import('./pagebert.js').Prediction | undefined} */
let shown;
/** @type {number | undefined} */
let announceTimer;

element('more').addEventListener('click', () => {
  showAll = true;
  if (shown) drawScores(shown.scores);
});

/** @param {'loading'|'empty'|'result'|'long'|'reading'|'failed'} view */
function show(view) {
  answer.dataset.view = view;
  busy(view === 'loading' || view === 'reading');
}

/** @param {boolean} isBusy an answer is on its way; the old one stays until it is there */
export function busy(isBusy) {
  answer.setAttribute('aria-busy', String(isBusy));
  element('spinner').hidden = !isBusy;
}

/** @param {import('./pagebert.js').LoadProgress} progress */
export function loading({ stage, loaded, total }) {
  show('loading');
  const preparing = stage === 'prepare';
  element('loading-text').textContent = preparing ? 'Preparing the model…' : 'Loading the model…';
  element('loading-bytes').textContent = total ? `${megabytes(loaded)} of ${megabytes(total)}` : '';
  bar('loading-bar', total ? loaded / total : 0, total ? `${megabytes(loaded)} of ${megabytes(total)}` : 'starting');
}

/** @param {string} [message] */
export function empty(message = 'The answer appears here.') {
  shown = undefined;
  element('empty-text').textContent = message;
  show('empty');
  announce('');
}

/** @param {import('./pagebert.js').Prediction} prediction */
export function result(prediction) {
  const { label, score, unsure, scores, tokens, windows, ms } = prediction;
  shown = prediction;
  element('label').textContent = label;
  element('label').classList.toggle('wordy', label.length > 24);
  element('score').textContent = percent(score);
  element('unsure').hidden = !unsure;
  drawScores(scores);
  element('cost').textContent = [duration(ms), counted(tokens, 'token'), ...(windows > 1 ? [counted(windows, 'window')] : [])].join(' · ');
  show('result');
  announce(`${label}, ${percent(score)}${unsure ? ', unsure' : ''}.`);
}

/** @param {{label: string, score: number}[]} scores */
function drawScores(scores) {
  const visible = showAll ? scores : scores.slice(0, FEW);
  const list = element('scores');
  // Rows are kept and refilled, so that bars glide instead of jumping.
  while (list.children.length > visible.length) list.lastElementChild.remove();
  while (list.children.length < visible.length) list.append(scoreRow());
  visible.forEach(({ label, score }, index) => {
    const [name, value, track] = list.children[index].children;
    name.textContent = label;
    value.textContent = percent(score);
    fill(track, score);
  });
  const more = element('more');
  more.hidden = visible.length === scores.length;
  more.textContent = `Show all ${integer(scores.length)} classes`;
}

function scoreRow() {
  const row = document.createElement('li');
  const name = document.createElement('span');
  name.className = 'name';
  name.dir = 'auto';
  const value = document.createElement('span');
  value.className = 'value';
  const track = document.createElement('div');
  track.className = 'track';
  track.setAttribute('aria-hidden', 'true');
  const filling = document.createElement('div');
  filling.className = 'fill';
  track.append(filling);
  row.append(name, value, track);
  return row;
}

/** @param {number} characters @param {number | undefined} estimateMs */
export function long(characters, estimateMs) {
  const estimate = estimateMs === undefined ? '' : `, about ${duration(Math.max(1000, estimateMs))} on this device`;
  element('long-text').textContent = `This is a long text (${counted(characters, 'character')}${estimate}), so it is not read at every keystroke.`;
  show('long');
  announce('Long text: press Classify this text, or Control Enter, to read it.');
}

/** @param {{done: number, total: number}} progress */
export function reading({ done, total }) {
  if (answer.dataset.view !== 'reading') announce(`Reading ${counted(total, 'window')}. Escape cancels.`);
  show('reading');
  element('reading-text').textContent = `Reading: ${integer(done)} of ${counted(total, 'window')}`;
  bar('reading-bar', done / total, `${integer(done)} of ${counted(total, 'window')}`);
}

/** @param {string} title @param {string} message */
export function failed(title, message) {
  shown = undefined;
  element('failed-title').textContent = title;
  element('failed-text').textContent = message;
  show('failed');
  announce('');
}

/** @param {string} text */
export function typed(text) {
  element('clear').disabled = text === '';
  element('count').textContent = text === '' ? '' : counted(text.length, 'character');
}

/** What the manifest tells about the model. @param {import('./pagebert.js').Classifier} classifier */
export function about({ labels, manifest, build, threads }) {
  const few = labels.length <= 6;
  element('lede').textContent = few
    ? `Paste or type a text. The model tells whether it is ${listedOr(labels)}.`
    : `Paste or type a text. The model finds which of ${integer(labels.length)} classes it belongs to.`;

  const { metrics, provenance, files } = manifest;
  const bytes = Object.values(files).reduce((sum, file) => sum + file.bytes, 0);
  const rows = metrics?.rows ? ` of ${counted(metrics.rows, 'text')}` : '';
  const unseen = metrics?.split === 'test' ? ' that it never saw in training' : '';
  /** @type {[string, string | undefined][]} */
  const facts = [
    ['Classes', labels.length > 24 ? `${listedShort(labels)} and ${integer(labels.length - 24)} more` : listed(labels)],
    ['Accuracy', metrics ? `${percent(metrics.accuracy)}${rows}${unseen}` : undefined],
    ['Macro F1', metrics ? percent(metrics.macro_f1) : undefined],
    ['Fine-tuned from', provenance?.base],
    ['Made on', provenance?.date && date(String(provenance.date))],
    ['Made with', provenance?.pagebert && `Pagebert ${provenance.pagebert}`],
    ['Weights', `${manifest.precision}, ${megabytes(bytes)} with the tokenizer`],
    ['Long texts', `windows of ${integer(manifest.max_tokens)} tokens, ${integer(manifest.stride)} of them shared with the next one`],
    ['Engine', `WebAssembly (${[build, ...(threads > 1 ? [counted(threads, 'thread')] : [])].join(', ')})`],
  ];
  element('facts').replaceChildren(...facts.flatMap(([term, description]) => {
    if (!description) return [];
    const dt = document.createElement('dt');
    dt.textContent = term;
    const dd = document.createElement('dd');
    dd.dir = 'auto';
    dd.textContent = description;
    return [dt, dd];
  }));
  element('about').hidden = false;
}

/** @param {string[]} labels */
function listedOr(labels) {
  return `${labels.slice(0, -1).join(', ')} or ${labels.at(-1)}`;
}

/** @param {string[]} labels */
function listedShort(labels) {
  return labels.slice(0, 24).join(', ');
}

/** @param {string} id @param {number} share @param {string} text */
function bar(id, share, text) {
  const track = element(id);
  track.setAttribute('aria-valuenow', String(Math.round(share * 100)));
  track.setAttribute('aria-valuetext', text);
  fill(track, share);
}

/** Through the object model: the policy allows no style attributes. @param {Element} track @param {number} share */
function fill(track, share) {
  const filling = /** @type {HTMLElement} */ (track.firstElementChild);
  filling.style.transform = `translateX(${(Math.min(share, 1) - 1) * 100}%)`;
}

/** @param {string} sentence */
function announce(sentence) {
  clearTimeout(announceTimer);
  announceTimer = window.setTimeout(() => {
    element('announcement').textContent = sentence;
  }, ANNOUNCE_AFTER_MS);
}
