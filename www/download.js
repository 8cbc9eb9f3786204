// Owns fetching files with progress and checking their length. It must not know what the bytes mean.

import { PagebertError, abortedBy } from './errors.js';

/**
 * Adds up the bytes of several downloads for one progress bar.
 */
export class Progress {
  #loaded = 0;
  #total = 0;
  #report;

  /** @param {((event: {loaded: number, total: number}) => void) | undefined} report */
  constructor(report) {
    this.#report = report;
  }

  /** @param {number} bytes that are going to be fetched */
  expect(bytes) {
    this.#total += bytes;
  }

  /** @param {number} bytes that have arrived */
  add(bytes) {
    this.#loaded += bytes;
    this.#report?.({ loaded: this.#loaded, total: this.#total });
  }
}

/**
 * @param {URL} url
 * @param {{signal?: AbortSignal, cache?: RequestCache}} options
 * @returns {Promise<Response>} one whose status is fine
 */
async function request(url, { signal, cache }) {
  let response;
  try {
    response = await fetch(url, { signal, cache, credentials: 'same-origin' });
  } catch (cause) {
    throw broken(url, signal, cause);
  }
  if (response.ok) return response;
  const { status } = response;
  if (status === 404 || status === 410) {
    throw new PagebertError('missing_file', `${nameOf(url)} is not on the server (status ${status}). Upload the whole site folder again.`, { status });
  }
  throw new PagebertError('http', `The server refused ${nameOf(url)} (status ${status}). Check that the file may be read by everyone.`, { status });
}

/**
 * A small file of unknown length that must be fresh: manifests name the other files.
 * @param {URL} url
 * @param {AbortSignal} [signal]
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
export async function fetchFresh(url, signal) {
  const response = await request(url, { signal, cache: 'no-cache' });
  try {
    return new Uint8Array(await response.arrayBuffer());
  } catch (cause) {
    throw broken(url, signal, cause);
  }
}

/**
 * A file whose length is known, chunk by chunk; fulfilled when `take` has been called with all of them.
 * @param {URL} url
 * @param {number} bytes
 * @param {Progress} progress
 * @param {(chunk: Uint8Array<ArrayBuffer>) => void | Promise<void>} take is waited for, so that no more arrives than it can take
 * @param {AbortSignal} [signal]
 */
export async function fetchChunks(url, bytes, progress, take, signal) {
  const response = await request(url, { signal });
  let arrived = 0;
  const reader = /** @type {ReadableStream<Uint8Array<ArrayBuffer>>} */ (response.body).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      arrived += value.length;
      if (arrived > bytes) throw wrongSize(url, bytes, 'longer');
      progress.add(value.length);
      await take(value);
    }
  } catch (cause) {
    void reader.cancel().catch(() => {});
    throw cause instanceof PagebertError ? cause : broken(url, signal, cause);
  }
  if (arrived !== bytes) throw wrongSize(url, bytes, `only ${arrived}`);
}

/**
 * A file whose length is known, into one buffer of exactly that length.
 * @param {URL} url
 * @param {number} bytes
 * @param {Progress} progress
 * @param {AbortSignal} [signal]
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
export async function fetchExactly(url, bytes, progress, signal) {
  const content = new Uint8Array(bytes);
  let filled = 0;
  await fetchChunks(url, bytes, progress, (chunk) => {
    content.set(chunk, filled);
    filled += chunk.length;
  }, signal);
  return content;
}

/** The file's path as people see it in their folder. @param {URL} url */
function nameOf(url) {
  const folder = new URL('.', document.baseURI).href;
  return url.href.startsWith(folder) ? url.href.slice(folder.length).replace(/\?.*$/, '') : url.href;
}

/** @param {URL} url @param {number} bytes @param {string} found */
function wrongSize(url, bytes, found) {
  return new PagebertError('size', `${nameOf(url)} should have ${bytes} bytes but is ${found}. The upload or the download was cut short, or the file belongs to another bundle: upload the whole site folder again.`);
}

/** @param {URL} url @param {AbortSignal | undefined} signal @param {unknown} cause */
function broken(url, signal, cause) {
  if (signal?.aborted) return abortedBy(signal);
  return new PagebertError('network', `${nameOf(url)} could not be downloaded. Check the connection and try again.`, { cause });
}
