// Owns the engine's life inside the worker: starting it, giving it the bundle, running requests in order. It must not
// know about pages or addresses, and from `start` on it cannot reach the network: a bucket sends no policy header for
// this script, so the worker takes its own network functions away before it sees any text.

/**
 * @typedef {{id: number, type: string, [field: string]: any}} Order
 */

/** Everything in a worker that can send something somewhere. */
const NETWORK = ['fetch', 'XMLHttpRequest', 'WebSocket', 'WebSocketStream', 'WebTransport', 'EventSource', 'BroadcastChannel', 'RTCPeerConnection', 'importScripts', 'Worker', 'SharedWorker', 'caches', 'indexedDB'];

/** The wasm-bindgen glue of the chosen build. @type {any} */
let engine;
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
  async start({ glue, wasm }) {
    try {
      engine = await import(glue);
      removeNetwork();
      engine.initSync({ module: await WebAssembly.compile(wasm) });
    } catch (cause) {
      throw coded('engine', `The engine could not be started (${messageOf(cause)}). Upload the whole site folder again, or use a current browser.`);
    }
  },

  open({ manifest }) {
    bundle = new engine.Bundle(manifest);
  },

  file({ name, bytes }) {
    bundle.add(name, bytes);
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

function removeNetwork() {
  for (const name of NETWORK) {
    for (let scope = self; scope; scope = Object.getPrototypeOf(scope)) delete (/** @type {any} */ (scope)[name]);
    Object.defineProperty(self, name, { value: undefined, writable: false, configurable: false });
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

/** @param {string} code @param {string} message */
function coded(code, message) {
  return Object.assign(new Error(message), { code });
}

/** @param {unknown} error */
function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}
