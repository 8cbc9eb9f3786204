// Owns the choice and download of the WebAssembly engine. It must not know about bundles or text.

import { fetchExactly, fetchFresh } from './download.js';
import { PagebertError } from './errors.js';

/**
 * One build in engine.json, which scripts/build-web writes. The wasm carries its hash in its name.
 * @typedef {{js: string, wasm: string, bytes: number, sha256: string}} Build
 */

/**
 * Smallest modules that only validate where a feature is there (from the WebAssembly feature-detection
 * project). The fastest build comes first; a build that is not in engine.json is passed over.
 * @type {[string, number[]][]}
 */
const BUILDS = [
  // v128: i32.const 0; i8x16.splat; i8x16.popcnt
  ['simd', [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11]],
];

/** @throws {PagebertError} where nothing could ever run */
export function requireFeatures() {
  if (typeof WebAssembly !== 'object' || typeof WebAssembly.validate !== 'function') {
    throw new PagebertError('unsupported', 'This browser has no WebAssembly, or it is switched off. Use a current Chrome, Edge, Firefox or Safari, and leave out modes that block WebAssembly (such as Lockdown Mode) for this page.');
  }
  if (typeof Worker !== 'function') {
    throw new PagebertError('unsupported', 'This browser has no web workers. Use a current Chrome, Edge, Firefox or Safari.');
  }
}

/**
 * @param {AbortSignal} signal
 * @returns {Promise<Build & {name: string}>} the fastest build that this browser can run
 */
export async function chooseBuild(signal) {
  const url = new URL('./engine.json', import.meta.url);
  const bytes = await fetchFresh(url, signal);
  let builds;
  try {
    ({ builds } = JSON.parse(new TextDecoder().decode(bytes)));
  } catch (cause) {
    throw new PagebertError('engine', 'engine.json cannot be read. Upload the whole site folder again.', { cause });
  }
  for (const [name, probe] of BUILDS) {
    const build = builds?.[name];
    if (build && WebAssembly.validate(new Uint8Array(probe))) return { name, ...build };
  }
  throw new PagebertError('unsupported', 'This browser lacks WebAssembly SIMD. Use a current Chrome, Edge, Firefox or Safari (16.4 or newer).');
}

/**
 * @param {Build} build
 * @param {import('./download.js').Progress} progress
 * @param {AbortSignal} signal
 * @returns {Promise<{glue: string, wasm: Uint8Array<ArrayBuffer>}>} what the worker needs to start
 */
export async function fetchEngine(build, progress, signal) {
  const glue = new URL(build.js, import.meta.url);
  // The glue has a stable name but only fits the wasm of its own build: a host that sends no cache headers must not
  // hand out an old one.
  glue.searchParams.set('v', build.sha256.slice(0, 16));
  const wasm = await fetchExactly(new URL(build.wasm, import.meta.url), build.bytes, progress, signal);
  return { glue: glue.href, wasm };
}
