// Owns the engine's life inside the worker: starting it, giving it the bundle, running requests in order. It must not
// know about pages or addresses, and from `glue` on it cannot reach the network.

import { removeNetwork } from './seal.js';

/**
 * @typedef {{id: number, type: string, [field: string]: any}} Order
 */

/** 64 KiB each: what WebAssembly counts memory in. */
const MOST_PAGES = 65_536;

/** The wasm-bindgen glue of the chosen build. @type {any} */
let engine;
/** @type {WebAssembly.Memory} */
let memory;
/** @type {any} */
let bundle;
/** @type {any} */
let classifier;

/** @type {Order[]} */
const queue = [];
/** The request being carried out, so that an abort can reach it. @type {{id: number, aborted: boolean} | undefined} */
let current;

/** What each request does; a result of `undefined` is fine. @type {Record<string, (request: Order) => any>} */
const handlers = {
  // While the page downloads the rest of the engine.
  async glue({ glue }) {
    try {
      engine = await import(glue);
      removeNetwork();
    } catch (cause) {
      throw notStarted(cause);
    }
  },

  async start({ glue, wasm, sharedPages }) {
    try {
      const module = await WebAssembly.compile(wasm);
      if (sharedPages) memory = sharedMemory(sharedPages);
      const exports = engine.initSync({ module, memory });
      memory ??= exports.memory;
      // What a thread needs to join in.
      return sharedPages ? { glue, module, memory } : undefined;
    } catch (cause) {
      throw notStarted(cause);
    }
  },

  threads({ threads }) {
    return engine.startThreads(threads);
  },

  open({ manifest }) {
    bundle = new engine.Bundle(manifest);
  },

  receive({ name, chunk }) {
    bundle.receive(name, chunk);
  },

  load() {
    // The constructor takes the bundle over, so nothing of it is left behind if it fails.
    const files = bundle;
    bundle = undefined;
    classifier = new engine.Classifier(files);
    return { labels: classifier.labels() };
  },

  async classify({ id, text }) {
    const started = performance.now();
    const job = classifier.begin(text);
    try {
      while (!classifier.read(job)) {
        await nextMessage();
        if (current?.aborted) return undefined;
      }
      for (let done = 1; !classifier.step(job); done++) {
        postMessage({ id, progress: { done, total: job.windows } });
        await nextMessage();
        if (current?.aborted) return undefined;
      }
      const prediction = classifier.finish(job);
      return { ...prediction, ms: performance.now() - started };
    } finally {
      job.free();
    }
  },

  memory() {
    return memory.buffer.byteLength;
  },
};

self.onmessage = ({ data }) => {
  if (data.type !== 'abort') {
    queue.push(data);
    if (!current) void work();
    return;
  }
  if (current && current.id === data.id) {
    current.aborted = true;
  } else {
    const index = queue.findIndex((request) => request.id === data.id);
    if (index >= 0) queue.splice(index, 1);
  }
};

async function work() {
  for (let request = queue.shift(); request; request = queue.shift()) {
    const { id, type } = request;
    current = { id, aborted: false };
    try {
      postMessage({ id, value: await handlers[type](request) });
    } catch (error) {
      postMessage({ id, error: describe(error) });
    }
    // Lets an abort of a waiting request in before that request is begun.
    await nextMessage();
  }
  current = undefined;
}

const { port1, port2 } = new MessageChannel();
/** @type {() => void} */
let wake = () => {};
port1.onmessage = () => wake();

/** Lets waiting messages in; unlike setTimeout this is not slowed down to 4 ms. @returns {Promise<void>} */
function nextMessage() {
  return new Promise((resolve) => {
    wake = resolve;
    port2.postMessage(null);
  });
}

/**
 * Memory that threads can share has to be given a limit, and some devices refuse to set aside as much as others.
 * @param {number} initial pages
 */
function sharedMemory(initial) {
  for (let maximum = MOST_PAGES; ; maximum /= 2) {
    try {
      return new WebAssembly.Memory({ initial, maximum, shared: true });
    } catch (cause) {
      if (maximum / 2 < initial || maximum < 4096) throw cause;
    }
  }
}

/** @param {any} error */
function describe(error) {
  if (error instanceof WebAssembly.RuntimeError) {
    // Without a panic it is the allocator that gave up.
    const panic = engine.lastPanic();
    const advice = panic === undefined
      ? `(${error.message}). The device may be short of memory: close other tabs and try again.`
      : `(${panic}). Try again; if it happens with the same text, please report it.`;
    return { code: 'engine', fatal: true, message: `The engine stopped while it worked ${advice}` };
  }
  // The engine's own errors carry a code; anything else is a defect of this file.
  return { code: error?.code ?? 'worker', message: messageOf(error) };
}

/** @param {unknown} cause */
function notStarted(cause) {
  return coded('engine', `The engine could not be started (${messageOf(cause)}). Upload the whole site folder again, or use a current browser.`);
}

/** @param {string} code @param {string} message */
function coded(code, message) {
  return Object.assign(new Error(message), { code });
}

/** @param {unknown} error */
function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}
