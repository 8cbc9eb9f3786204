// Owns one of the engine's threads: a worker that joins the engine's memory and computes what it is given, for good. It
// must not know bundles or text, and has no network once it has started.

import { removeNetwork } from './seal.js';

/** Deep enough for the kernels; they keep what is large on the heap. */
const STACK_BYTES = 256 * 1024;

self.onmessage = async ({ data: { glue, module, memory } }) => {
  let engine;
  try {
    engine = await import(glue);
    removeNetwork();
    engine.initSync({ module, memory, thread_stack_size: STACK_BYTES });
    postMessage({ ready: true });
    engine.runThread();
  } catch (cause) {
    // The engine waits for this thread and can say nothing itself.
    postMessage({ error: engine?.lastPanic?.() ?? (cause instanceof Error ? cause.message : String(cause)) });
  }
};
