// Owns the worker, its threads, and the matching of replies to requests. It must not know what the requests mean.

import { PagebertError, abortedBy } from './errors.js';

/**
 * @typedef {{
 *   resolve: (value: any) => void,
 *   reject: (error: PagebertError) => void,
 *   onProgress?: (progress: any) => void,
 *   release: () => void,
 * }} Pending
 */

/** A worker with one promise per request. Requests are carried out in order, one at a time. */
export class WorkerBridge {
  #worker;
  /** Workers that compute for the first one. @type {Worker[]} */
  #threads = [];
  /** A number in the engine's memory, by which its threads sleep. @type {Int32Array | undefined} */
  #bell;
  /** @type {Map<number, Pending>} */
  #pending = new Map();
  #nextId = 1;
  /** Why no request can be made any more. @type {PagebertError | undefined} */
  #ended;

  constructor() {
    const url = new URL('./worker.js', import.meta.url);
    try {
      this.#worker = new Worker(url, { type: 'module', name: 'pagebert' });
    } catch (cause) {
      throw new PagebertError('worker', 'The worker could not be started. Use a current browser, and serve the page over http or https (not from a file).', { cause });
    }
    this.#worker.onmessage = ({ data }) => this.#receive(data);
    this.#worker.onmessageerror = () => this.end(new PagebertError('worker', 'A reply of the worker could not be read. Reload the page.'));
    this.#worker.onerror = (event) => {
      event.preventDefault();
      // A script that cannot be fetched or parsed gives an event without a message.
      const message = event.message
        ? `The worker stopped (${event.message}). Reload the page.`
        : 'The worker could not be started: worker.js, or a module that it imports, is missing or broken. Upload the whole site folder again.';
      this.end(new PagebertError('worker', message));
    };
  }

  /**
   * @param {string} type
   * @param {object} [body]
   * @param {{transfer?: Transferable[], signal?: AbortSignal, onProgress?: (progress: any) => void, rings?: boolean}} [options]
   *   `rings` wakes the threads meanwhile
   * @returns {Promise<any>}
   */
  request(type, body = {}, { transfer = [], signal, onProgress, rings } = {}) {
    if (this.#ended) return Promise.reject(this.#ended);
    if (signal?.aborted) return Promise.reject(abortedBy(signal));
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const abort = () => {
        this.#worker.postMessage({ type: 'abort', id });
        this.#settle(id)?.reject(abortedBy(/** @type {AbortSignal} */ (signal)));
      };
      signal?.addEventListener('abort', abort);
      const release = () => signal?.removeEventListener('abort', abort);
      this.#pending.set(id, { resolve, reject, onProgress, release });
      this.#worker.postMessage({ ...body, id, type }, transfer);
      if (rings && this.#bell) {
        Atomics.add(this.#bell, 0, 1);
        Atomics.notify(this.#bell, 0);
      }
    });
  }

  /**
   * Starts threads that share the worker's memory; fulfilled when all of them are there.
   * @param {number} count
   * @param {object} engine what they need to join in
   */
  async addThreads(count, engine) {
    await Promise.all(Array.from({ length: count }, () => this.#addThread(engine)));
  }

  /** @param {Int32Array} bell what wakes the threads: one more, and a notice (kernels/src/cpu/parallel/bell.rs) */
  setBell(bell) {
    this.#bell = bell;
  }

  /** @param {object} engine @returns {Promise<void>} */
  #addThread(engine) {
    if (this.#ended) return Promise.reject(this.#ended);
    const thread = new Worker(new URL('./thread.js', import.meta.url), { type: 'module', name: 'pagebert thread' });
    this.#threads.push(thread);
    return new Promise((resolve, reject) => {
      /** @param {PagebertError} reason */
      const fail = (reason) => {
        this.end(reason);
        reject(reason);
      };
      thread.onmessage = ({ data: { error } }) => {
        if (error === undefined) resolve();
        else fail(new PagebertError('engine', `A thread of the engine stopped (${error}). Reload the page.`));
      };
      thread.onerror = (event) => {
        event.preventDefault();
        fail(new PagebertError('worker', 'A thread could not be started: thread.js, or a module that it imports, is missing or broken. Upload the whole site folder again.'));
      };
      thread.postMessage(engine);
    });
  }

  /**
   * Stops the worker and its threads, whatever they are doing; everything that waits for them is told why.
   * @param {PagebertError} reason
   */
  end(reason) {
    if (this.#ended) return;
    this.#ended = reason;
    this.#worker.terminate();
    for (const thread of this.#threads) thread.terminate();
    // Both hold the engine's memory.
    this.#threads = [];
    this.#bell = undefined;
    for (const id of [...this.#pending.keys()]) this.#settle(id)?.reject(reason);
  }

  /** @param {{id: number, value?: any, progress?: any, error?: {code: any, message: string, fatal?: boolean}}} reply */
  #receive({ id, value, progress, error }) {
    if (progress) {
      this.#pending.get(id)?.onProgress?.(progress);
    } else if (error) {
      const problem = new PagebertError(error.code, error.message);
      // After a trap the engine's memory is in an unknown state: no answer of it can be trusted any more.
      if (error.fatal) this.end(problem);
      else this.#settle(id)?.reject(problem);
    } else {
      this.#settle(id)?.resolve(value);
    }
  }

  /** Takes a request off the list; there is none when it was aborted before. @param {number} id */
  #settle(id) {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    pending?.release();
    return pending;
  }
}
