// Owns the one error type that callers of pagebert.js meet. It must not know where errors come from.

/**
 * What went wrong, for programs:
 *
 * - `unsupported`   the browser lacks WebAssembly, its SIMD instructions or workers
 * - `network`       a request could not be made, or broke off
 * - `http`          the server answered with an error status (see `status`)
 * - `missing_file`  a file of the engine or the bundle is not there (404, 410, or not in the manifest)
 * - `size`          a file has another length than promised: the upload or download was cut short
 * - `hash`          a file's content is not what the manifest promises
 * - `version`       the bundle was made for another version of Pagebert
 * - `format`        the manifest, the weights or the tokenizer cannot be read
 * - `shape`         a tensor does not fit the configuration
 * - `memory`        the device does not give as much memory as the model needs
 * - `engine`        the WebAssembly engine could not be started, or stopped while it worked
 * - `worker`        the worker script could not be started, or died
 * - `aborted`       the caller's AbortSignal fired (its reason is the `cause`)
 * - `closed`        the classifier was closed
 *
 * @typedef {'unsupported'|'network'|'http'|'missing_file'|'size'|'hash'|'version'|'format'|'shape'|'memory'|'engine'|'worker'|'aborted'|'closed'} ErrorCode
 */

/** An error with a `code` for programs and a `message` for people. */
export class PagebertError extends Error {
  /**
   * @param {ErrorCode} code
   * @param {string} message what happened, to which file, and what to do about it
   * @param {{status?: number, cause?: unknown}} [details]
   */
  constructor(code, message, { status, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'PagebertError';
    /** @type {ErrorCode} */
    this.code = code;
    /** The HTTP status, where a server's answer was the trouble. @type {number | undefined} */
    this.status = status;
  }
}

/**
 * @param {AbortSignal} signal one that has fired
 * @returns {PagebertError}
 */
export function abortedBy(signal) {
  return new PagebertError('aborted', 'The request was aborted.', { cause: signal.reason });
}
