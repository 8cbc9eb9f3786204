// pagebert.js as a program uses it, held against the native command.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { assertSamePredictions, engine, launch, manifest, nativePredictions, noWorkers, openEmbedding, serve, siteWithEmbedding, watchedPage } from './support.js';

describe('pagebert.js', () => {
  /** @type {import('playwright-core').Browser} */
  let browser;
  /** @type {Awaited<ReturnType<typeof serve>>} */
  let server;
  /** @type {import('playwright-core').Page} */
  let page;
  /** @type {string[]} */
  let requests;
  /** @type {string[]} */
  let troubles;

  before(async () => {
    [browser, server] = await Promise.all([launch(), serve(siteWithEmbedding())]);
    ({ page, requests, troubles } = await watchedPage(browser));
    await openEmbedding(page, server.url);
    await page.evaluate(async () => {
      const scope = /** @type {any} */ (globalThis);
      scope.events = [];
      await scope.load({ threads: 1, onProgress: (/** @type {any} */ event) => scope.events.push(event) });
    });
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
  });

  test('reports progress in bytes, from nothing to everything', async () => {
    const events = await page.evaluate(() => /** @type {any} */ (globalThis).events);
    const total = engine.builds.relaxed.bytes + Object.values(manifest.files).reduce((sum, file) => sum + file.bytes, 0);
    assert.deepEqual(events[0], { stage: 'download', loaded: 0, total });
    assert.deepEqual(events.at(-1), { stage: 'prepare', loaded: total, total });
    for (let i = 1; i < events.length; i++) assert.ok(events[i].loaded >= events[i - 1].loaded);
  });

  test('gives the labels and probabilities of pagebert predict', { timeout: 300_000 }, async (t) => {
    const expected = nativePredictions();
    assert.ok(expected.length >= 100, `a hundred rows or more (${expected.length})`);
    const texts = expected.map(({ text }) => text);
    const { predictions, progress } = await page.evaluate(async (texts) => {
      /** @type {any[]} */
      const progress = [];
      const predictions = await /** @type {any} */ (globalThis).classifier.classifyMany(texts, { onProgress: (/** @type {any} */ event) => progress.push(event) });
      return { predictions, progress };
    }, texts);
    assert.deepEqual(progress.at(-1), { done: texts.length, total: texts.length });
    const worst = assertSamePredictions(expected, predictions);
    t.diagnostic(`${texts.length} rows, largest difference of a probability ${worst.toExponential(1)}`);
  });

  test('gives concurrent calls their own answers', async () => {
    const texts = Array.from({ length: 12 }, (_, index) => 'again '.repeat(1 + index * 3));
    const { together, alone } = await page.evaluate(async (texts) => {
      const { classifier } = /** @type {any} */ (globalThis);
      const together = await Promise.all(texts.map((text) => classifier.classify(text)));
      const alone = [];
      for (const text of texts) alone.push(await classifier.classify(text));
      return { together, alone };
    }, texts);
    together.forEach((/** @type {any} */ prediction, /** @type {number} */ index) => {
      assert.deepEqual(prediction.logits, alone[index].logits);
      assert.equal(prediction.tokens, alone[index].tokens);
    });
    assert.equal(new Set(together.map((/** @type {any} */ prediction) => prediction.tokens)).size, texts.length, 'they differ, so a mix-up would show');
  });

  test('reads a long text in windows and says how far it is', async () => {
    const { prediction, progress } = await page.evaluate(async () => {
      /** @type {any[]} */
      const progress = [];
      const prediction = await /** @type {any} */ (globalThis).classifier.classify('word '.repeat(2000), { onProgress: (/** @type {any} */ event) => progress.push(event) });
      return { prediction, progress };
    });
    assert.ok(prediction.windows > 1);
    assert.deepEqual(progress, Array.from({ length: prediction.windows - 1 }, (_, index) => ({ done: index + 1, total: prediction.windows })));
  });

  test('aborts the running and the waiting request, and only these', async () => {
    const [running, waiting, before, next] = await page.evaluate(async () => {
      const { classifier, outcome } = /** @type {any} */ (globalThis);
      const controller = new AbortController();
      const running = outcome(classifier.classify('a long one '.repeat(20_000), { signal: controller.signal, onProgress: () => controller.abort() }));
      const waiting = outcome(classifier.classify('never begun', { signal: controller.signal }));
      const before = outcome(classifier.classify('too late', { signal: AbortSignal.abort() }));
      const next = outcome(classifier.classify('unharmed'));
      return Promise.all([running, waiting, before, next]);
    });
    for (const { error, code } of [running, waiting, before]) {
      assert.equal(error, 'PagebertError');
      assert.equal(code, 'aborted');
    }
    assert.ok(manifest.labels.includes(next.value.label));
  });

  test('stops loading when asked to', async () => {
    const { code } = await page.evaluate(async () => {
      const { loadClassifier } = await import(new URL('pagebert.js', document.baseURI).href);
      const controller = new AbortController();
      return /** @type {any} */ (globalThis).outcome(loadClassifier('model', { signal: controller.signal, onProgress: () => controller.abort() }));
    });
    assert.equal(code, 'aborted');
  });

  test('leaves the worker without a way to the network', async () => {
    const [worker] = page.workers();
    const left = await worker.evaluate(() => ['fetch', 'XMLHttpRequest', 'WebSocket', 'WebTransport', 'EventSource', 'BroadcastChannel', 'importScripts', 'Worker', 'caches', 'indexedDB']
      .filter((name) => /** @type {any} */ (globalThis)[name] !== undefined));
    assert.deepEqual(left, []);
  });

  test('refuses what is no text', async () => {
    const { error } = await page.evaluate(() => {
      const { classifier, outcome } = /** @type {any} */ (globalThis);
      return outcome(classifier.classify(42));
    });
    assert.equal(error, 'TypeError');
  });

  test('answers nothing after close, and gives the worker back', async () => {
    const [interrupted, afterwards] = await page.evaluate(async () => {
      const { classifier, outcome } = /** @type {any} */ (globalThis);
      const interrupted = outcome(classifier.classify('interrupted '.repeat(5000)));
      classifier.close();
      classifier.close();
      return [await interrupted, await outcome(classifier.classify('closed'))];
    });
    assert.equal(interrupted.code, 'closed');
    assert.equal(afterwards.code, 'closed');
    await noWorkers(page);
  });

  test('has kept to its origin and to a clean console all along', () => {
    assert.deepEqual(requests.filter((url) => !url.startsWith(server.url)), []);
    assert.deepEqual(troubles, []);
  });
});
