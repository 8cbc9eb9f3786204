// Owns the choice and download of the WebAssembly engine. It must not know about bundles or text.

import { fetchExactly, fetchFresh } from './download.js';
import { PagebertError } from './errors.js';

/**
 * One build in engine.json, which scripts/build-web writes. The wasm carries its hash in its name. `sharedPages` is
 * there where threads share the memory: how much of it the build asks for at the start.
 * @typedef {{js: string, wasm: string, bytes: number, sha256: string, sharedPages?: number}} Build
 */

/** @typedef {'simd' | 'relaxed' | 'relaxed-threads'} BuildName */

/** Beyond these a step of the model is too short to be shared any further. */
const MOST_THREADS = 8;

// Smallest modules that validate only where a feature is there. All begin with the magic number, version 1, and a
// section (1) of types; then come sections of functions (3), memories (5), and code (10).
const HEAD = [0, 97, 115, 109, 1, 0, 0, 0];
/** One function, () → v128. */
const RETURNS_V128 = [1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0];
/** i32.const 0; i8x16.splat; i8x16.popcnt */
const SIMD = [...HEAD, ...RETURNS_V128, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
/** i32.const 1; i8x16.splat; i32.const 2; i8x16.splat; i8x16.relaxed_swizzle */
const RELAXED = [...HEAD, ...RETURNS_V128, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253, 128, 2, 11];
/** () → nothing; a shared memory of one page; i32.const 0; i32.atomic.load; drop */
const ATOMICS = [...HEAD, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 5, 4, 1, 3, 1, 1, 10, 11, 1, 9, 0, 65, 0, 254, 16, 2, 0, 26, 11];

/** @param {number[]} probe */
const validates = (probe) => WebAssembly.validate(new Uint8Array(probe));

/** Shared memory is for pages that no other origin can look into. */
const canShare = () => globalThis.crossOriginIsolated === true && typeof SharedArrayBuffer === 'function' && validates(ATOMICS);

/**
 * What each build needs, the fastest first. A build that is not in engine.json is passed over.
 * @type {[BuildName, () => boolean][]}
 */
const BUILDS = [
  ['relaxed-threads', () => validates(RELAXED) && canShare()],
  ['relaxed', () => validates(RELAXED)],
  ['simd', () => validates(SIMD)],
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
 * @param {number} [wanted]
 * @returns {number} so many threads as are wanted, or as leave the page one core to itself
 */
function threadCount(wanted = (navigator.hardwareConcurrency || 2) - 1) {
  return Math.min(Math.max(Math.floor(wanted) || 1, 1), MOST_THREADS);
}

/**
 * @param {AbortSignal} signal
 * @returns {Promise<Record<string, Build>>} all builds that the site has
 */
async function fetchBuilds(signal) {
  const bytes = await fetchFresh(new URL('./engine.json', import.meta.url), signal);
  try {
    const { builds } = JSON.parse(new TextDecoder().decode(bytes));
    return builds ?? {};
  } catch (cause) {
    throw new PagebertError('engine', 'engine.json cannot be read. Upload the whole site folder again.', { cause });
  }
}

/**
 * @param {{threads?: number, build?: BuildName, signal: AbortSignal}} options
 * @returns {Promise<Build & {name: BuildName, threads: number}>} the fastest build that this browser can run, or the one
 *   that is asked for
 */
export async function chooseBuild({ threads, build: asked, signal }) {
  const builds = await fetchBuilds(signal);
  const count = threadCount(threads);
  const able = BUILDS.filter(([name, isAble]) => builds[name] && isAble());
  const [name] = able.find(([name]) => (asked ? name === asked : count > 1 || !builds[name].sharedPages)) ?? [];
  if (name) return { ...builds[name], name, threads: builds[name].sharedPages ? count : 1 };
  throw new PagebertError('unsupported', asked
    ? `The build ${asked} is not on the server, or this page cannot run it (threads need cross-origin isolation).`
    : 'This browser lacks WebAssembly SIMD. Use a current Chrome, Edge, Firefox or Safari (16.4 or newer).');
}

/**
 * @param {Build} build
 * @returns {string} the address of the JavaScript around its wasm
 */
export function glueOf(build) {
  const glue = new URL(build.js, import.meta.url);
  // The glue has a stable name but only fits the wasm of its own build: a host that sends no cache headers must not
  // hand out an old one.
  glue.searchParams.set('v', build.sha256.slice(0, 16));
  return glue.href;
}

/**
 * @param {Build} build
 * @param {import('./download.js').Progress} progress
 * @param {AbortSignal} signal
 * @returns {Promise<Uint8Array<ArrayBuffer>>} its wasm
 */
export function fetchWasm(build, progress, signal) {
  return fetchExactly(new URL(build.wasm, import.meta.url), build.bytes, progress, signal);
}
