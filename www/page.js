// Owns the conversation with the person: what is typed, when it is classified, what is shown. It must not draw (that is
// view.js) and must not know how answers come about (that is pagebert.js).

import { forgetFiles, keepFiles, keeperIsThere } from './keep.js';
import { loadClassifier, PagebertError } from './pagebert.js';
import * as view from './view.js';

const MODEL = './model/';
/** From here on a text is read only when asked for: a page of text at every keystroke would warm the room for nothing. */
const LONG_CHARACTERS = 20_000;
/** The wait after a keystroke: as long as the last answer took, within what feels immediate. */
const MIN_DELAY_MS = 60;
const MAX_DELAY_MS = 500;
/** Window progress is shown only for what takes longer than a blink. */
const SHOW_READING_AFTER_MS = 400;

/** @type {Record<string, string>} */
const TITLES = {
  unsupported: 'This browser cannot run the classifier',
  network: 'The download did not work',
  http: 'The download did not work',
  missing_file: 'A file is missing',
  size: 'A file is incomplete',
  hash: 'A file is damaged',
  memory: 'This device is short of memory',
  version: 'The model needs another version of this page',
};

const input = /** @type {HTMLTextAreaElement} */ (document.getElementById('text'));

/** @type {import('./pagebert.js').Classifier | undefined} */
let classifier;
/** The request whose answer is wanted; an older one is aborted. @type {AbortController | undefined} */
let wanted;
/** @type {number | undefined} */
let timer;
let lastMs = 0;
/** Learnt from the last text, for estimates. @type {number | undefined} */
let msPerCharacter;

async function load() {
  classifier?.close();
  classifier = undefined;
  view.loading({ stage: 'download', loaded: 0, total: 0 });
  try {
    await keeper;
    classifier = await loadClassifier(MODEL, { onProgress: view.loading });
    view.about(classifier);
    keepFiles(classifier.build);
  } catch (error) {
    forgetFiles();
    return fail(error);
  }
  update();
}

/** The text has changed, or is to be looked at anew. @param {number} [delayMs] */
function update(delayMs = 0) {
  const text = input.value;
  view.typed(text);
  if (!classifier) return;
  stop();
  if (text.trim() === '') return view.empty();
  if (text.length > LONG_CHARACTERS) return view.long(text.length, msPerCharacter && msPerCharacter * text.length);
  view.busy(true);
  timer = window.setTimeout(classify, delayMs);
}

/** The wanted answer is wanted no more. */
function stop() {
  clearTimeout(timer);
  wanted?.abort();
  wanted = undefined;
}

async function classify() {
  const text = input.value;
  if (!classifier || text.trim() === '') return;
  stop();
  const mine = new AbortController();
  wanted = mine;
  view.busy(true);
  const started = performance.now();
  const onProgress = (/** @type {{done: number, total: number}} */ progress) => {
    if (mine === wanted && performance.now() - started > SHOW_READING_AFTER_MS) view.reading(progress);
  };
  try {
    const prediction = await classifier.classify(text, { signal: mine.signal, onProgress });
    if (mine !== wanted) return;
    lastMs = prediction.ms;
    msPerCharacter = prediction.ms / text.length;
    view.result(prediction);
  } catch (error) {
    if (mine === wanted) fail(error);
  } finally {
    if (mine === wanted) wanted = undefined;
  }
}

function cancel() {
  if (!wanted) return;
  stop();
  if (input.value.length > LONG_CHARACTERS) update();
  else view.empty('Cancelled. Change the text to read it again.');
  input.focus();
}

/** @param {unknown} error */
function fail(error) {
  const { code, message } = error instanceof PagebertError ? error : { code: 'page', message: String(error) };
  view.failed(TITLES[code] ?? 'The classifier does not work', message);
}

input.addEventListener('input', () => update(Math.min(Math.max(lastMs, MIN_DELAY_MS), MAX_DELAY_MS)));
document.getElementById('clear')?.addEventListener('click', () => {
  input.value = '';
  update();
  input.focus();
});
document.getElementById('classify')?.addEventListener('click', () => {
  void classify();
  // The button goes away with its part of the card; the keyboard must not be left nowhere.
  input.focus();
});
document.getElementById('cancel')?.addEventListener('click', cancel);
document.getElementById('retry')?.addEventListener('click', () => {
  const keeper = keeperIsThere();
void load();
  input.focus();
});
document.addEventListener('keydown', (event) => {
  if (event.isComposing) return;
  if (event.key === 'Escape') cancel();
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    void classify();
  }
});

const keeper = keeperIsThere();
void load();
