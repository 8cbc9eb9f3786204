// Pagebert in the browser: a fine-tuned BERT that classifies text without sending it anywhere.
//
//   import { loadClassifier } from './pagebert.js';
//   const classifier = await loadClassifier('./model/', { onProgress: ({ loaded, total }) => …  });
//   const { label, score } = await classifier.classify('What a film!');
//   classifier.close();
//
// Owns the public interface and the loading of a bundle. It must not touch the document (but for its address) and
// must not compute anything about text: that happens in the worker.

import { WorkerBridge } from './bridge.js';
import { Progress, fetchChunks, fetchFresh } from './download.js';
import { chooseBuild, fetchWasm, glueOf, requireFeatures } from './engine.js';
import { PagebertError, abortedBy } from './errors.js';

export { PagebertError } from './errors.js';

/**
 * One text's answer. `scores` is sorted, highest first; `logits` is in the order of `labels`. `tokens` counts what ran
 * through the model over all `windows`; `ms` is the time the engine took, waiting in the queue not included.
 * @typedef {{
 *   label: string, score: number, unsure: boolean, scores: {label: string, score: number}[], logits: number[],
 *   tokens: number, windows: number, ms: number,
 * }} Prediction
 */

/**
 * Shorter texts, where letters make words, have fewer tokens than are worth waking threads for
 * (kernels/src/cpu/parallel/awake.rs). The engine wakes them itself for others.
 */
const WORTH_RINGING = 100;

/** Chunks of a file that may be on their way to the worker: enough to keep it busy, few enough to need no room. */
const MOST_WAITING = 8;

/**
 * `download` counts bytes of engine and bundle together; `prepare` is the moment from the last byte to the first answer.
 * @typedef {{stage: 'download' | 'prepare', loaded: number, total: number}} LoadProgress
 */

/**
 * Loads a bundle: `manifest.json` and the files that it names. Everything is checked: sizes on arrival, hashes and
 * shapes by the engine.
 * @param {string | URL} url the bundle's folder, relative to the page
 * @param {object} [options]
 * @param {(progress: LoadProgress) => void} [options.onProgress]
 * @param {number} [options.threads] at most so many, and never more than 8; by default one for each of the processor's
 *   cores but one. Threads need a page that is cross-origin isolated; without that, and with `1`, there is one
 * @param {import('./engine.js').BuildName} [options.build] this build of the engine and no other, to compare them; by
 *   default the fastest that the browser can run
 * @param {AbortSignal} [options.signal] stops loading
 * @returns {Promise<Classifier>}
 * @throws {PagebertError} its `code` is listed in errors.js
 */
export async function loadClassifier(url, { onProgress, threads, build: asked, signal } = {}) {
  requireFeatures();
  if (signal?.aborted) throw abortedBy(signal);
  const folder = folderUrl(url);

  // One failure stops the other downloads; so does the caller.
  const loading = new AbortController();
  const abort = () => loading.abort(signal?.reason);
  signal?.addEventListener('abort', abort);
  const bridge = new WorkerBridge();
  try {
    const [build, manifestBytes] = await Promise.all([
      chooseBuild({ threads, build: asked, signal: loading.signal }),
      fetchFresh(new URL('manifest.json', folder), loading.signal),
    ]);
    const manifest = readManifest(manifestBytes);
    const files = filesOf(manifest, folder);

    const progress = new Progress((event) => onProgress?.({ stage: 'download', ...event }));
    progress.expect(build.bytes);
    for (const { bytes } of files) progress.expect(bytes);
    progress.add(0);

    const fetching = { glue: glueOf(build), wasm: fetchWasm(build, progress, loading.signal) };
    const opened = startEngine(bridge, build, fetching)
      .then(() => bridge.request('open', { manifest: manifestBytes }));
    const delivered = files.map(({ name, url, bytes }) => {
      const give = giver(bridge, name, opened);
      return fetchChunks(url, bytes, progress, give, loading.signal).then(() => give());
    });
    await Promise.all([opened, ...delivered]);

    const total = files.reduce((sum, { bytes }) => sum + bytes, build.bytes);
    onProgress?.({ stage: 'prepare', loaded: total, total });
    const { labels } = await bridge.request('load', {}, { signal: loading.signal });
    return new Classifier(bridge, labels, manifest, build);
  } catch (error) {
    const reason = signal?.aborted ? abortedBy(signal) : error;
    loading.abort(reason);
    bridge.end(reason instanceof PagebertError ? reason : new PagebertError('worker', 'Loading failed.', { cause: reason }));
    throw reason;
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}

/** A loaded bundle. Requests run in the order in which they are made; each gets its own answer. */
export class Classifier {
  #bridge;

  /**
   * @param {WorkerBridge} bridge
   * @param {string[]} labels
   * @param {any} manifest
   * @param {{name: import('./engine.js').BuildName, threads: number}} build
   */
  constructor(bridge, labels, manifest, { name, threads }) {
    this.#bridge = bridge;
    /** The classes, in the order of `logits`. */
    this.labels = labels;
    /** The bundle's manifest as it was downloaded: metrics, provenance, limits. */
    this.manifest = manifest;
    /** Which of the engine's builds this browser runs. */
    this.build = name;
    /** How many threads share the work. */
    this.threads = threads;
  }

  /**
   * @param {string} text of any length: a long one is read in overlapping windows
   * @param {object} [options]
   * @param {AbortSignal} [options.signal] takes effect between two windows
   * @param {(progress: {done: number, total: number}) => void} [options.onProgress] windows read of a long text
   * @returns {Promise<Prediction>}
   */
  classify(text, { signal, onProgress } = {}) {
    if (typeof text !== 'string') return Promise.reject(new TypeError(`classify takes a string, not ${typeof text}`));
    return this.#bridge.request('classify', { text }, { signal, onProgress, rings: text.length >= WORTH_RINGING });
  }

  /**
   * @param {Iterable<string>} texts
   * @param {object} [options]
   * @param {AbortSignal} [options.signal]
   * @param {(progress: {done: number, total: number}) => void} [options.onProgress] texts classified
   * @returns {Promise<Prediction[]>} one answer per text, in order
   */
  async classifyMany(texts, { signal, onProgress } = {}) {
    const list = [...texts];
    const predictions = [];
    for (const text of list) {
      predictions.push(await this.classify(text, { signal }));
      onProgress?.({ done: predictions.length, total: list.length });
    }
    return predictions;
  }

  /** @returns {Promise<number>} the bytes of memory that the engine has taken: the model, and room for the longest text so far */
  memoryBytes() {
    return this.#bridge.request('memory');
  }

  /** Stops the worker and its threads, and gives their memory back. Whatever still waits is rejected with the code `closed`. */
  close() {
    this.#bridge.end(new PagebertError('closed', 'The classifier has been closed.'));
  }
}

/**
 * @param {WorkerBridge} bridge
 * @param {import('./engine.js').Build & {threads: number}} build
 * @param {{glue: string, wasm: Promise<Uint8Array<ArrayBuffer>>}} fetching
 */
async function startEngine(bridge, { threads, sharedPages }, { glue, wasm: fetched }) {
  const imported = bridge.request('glue', { glue });
  // Whatever stands in the way of both is said of the wasm.
  imported.catch(() => {});
  const wasm = await fetched;
  await imported;
  const engine = await bridge.request('start', { glue, wasm, sharedPages }, { transfer: [wasm.buffer] });
  if (!sharedPages) return;
  await bridge.addThreads(threads - 1, engine);
  const bell = await bridge.request('threads', { threads });
  bridge.setBell(new Int32Array(engine.memory.buffer, bell, 1));
}

/**
 * Gives a file to the worker chunk by chunk; without a chunk, waits until the worker has all of them.
 * @param {WorkerBridge} bridge
 * @param {string} name the file's, in the manifest
 * @param {Promise<void>} opened
 */
function giver(bridge, name, opened) {
  /** @type {Promise<void>[]} */
  const waiting = [];
  return async (/** @type {Uint8Array<ArrayBuffer> | undefined} */ chunk = undefined) => {
    if (!chunk) return void await Promise.all(waiting);
    // A chunk that is a part of a larger buffer cannot be handed over by itself.
    const own = chunk.byteLength === chunk.buffer.byteLength ? chunk : chunk.slice();
    const taken = opened.then(() => bridge.request('receive', { name, chunk: own }, { transfer: [own.buffer] }));
    // Whatever is wrong comes out where it is waited for.
    taken.catch(() => {});
    waiting.push(taken);
    if (waiting.length > MOST_WAITING) await waiting.shift();
  };
}

/** @param {string | URL} url @returns {URL} with a slash at the end, so that names resolve inside the folder */
function folderUrl(url) {
  const folder = new URL(url, document.baseURI);
  if (!folder.pathname.endsWith('/')) folder.pathname += '/';
  folder.search = '';
  folder.hash = '';
  return folder;
}

/** @param {Uint8Array} bytes @returns {any} `null` for what is no JSON: the engine says what is wrong with it */
function readManifest(bytes) {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return null;
  }
}

/**
 * The files to download. Entries that make no sense are left out here and named by the engine, which alone knows the
 * format and its versions.
 * @param {any} manifest
 * @param {URL} folder
 * @returns {{name: string, url: URL, bytes: number}[]}
 */
function filesOf(manifest, folder) {
  /** @type {{name: string, url: URL, bytes: number}[]} */
  const files = [];
  for (const [name, entry] of Object.entries(manifest?.files ?? {})) {
    const { path, bytes } = /** @type {any} */ (entry) ?? {};
    if (typeof path !== 'string' || !Number.isInteger(bytes) || bytes < 0 || bytes > 0xffffffff) continue;
    const url = new URL(path, folder);
    if (url.href.startsWith(folder.href)) files.push({ name, url, bytes });
  }
  return files;
}
