// ONNX Runtime Web in a worker of its own: each has its own engine, threads and settings.

/** @type {any} */
let ort;
/** @type {any} */
let session;

/** @type {Record<string, (order: any) => Promise<any>>} */
const orders = {
  async start({ module, wasmPaths, threads, simd, model, options }) {
    ort = await import(module);
    ort.env.wasm.numThreads = threads;
    ort.env.wasm.wasmPaths = wasmPaths;
    if (simd !== undefined) ort.env.wasm.simd = simd;
    session = await ort.InferenceSession.create(model, { executionProviders: ['wasm'], graphOptimizationLevel: 'all', ...options });
    return { threads: ort.env.wasm.numThreads, version: ort.env.versions.web };
  },

  async classify({ ids }) {
    const started = performance.now();
    const shape = [1, ids.length];
    /** @type {Record<string, () => BigInt64Array>} */
    const inputs = {
      input_ids: () => BigInt64Array.from(ids, BigInt),
      attention_mask: () => new BigInt64Array(ids.length).fill(1n),
      token_type_ids: () => new BigInt64Array(ids.length),
    };
    const feeds = Object.fromEntries(session.inputNames.map((/** @type {string} */ name) => [name, new ort.Tensor('int64', inputs[name](), shape)]));
    const { logits } = await session.run(feeds);
    return { logits: [...logits.data], tokens: ids.length, inner: performance.now() - started };
  },
};

self.onmessage = async ({ data }) => {
  try {
    postMessage({ value: await orders[data.type](data) });
  } catch (error) {
    postMessage({ error: String(error) });
  }
};
