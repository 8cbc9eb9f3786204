// The engine's builds: each gives the command's answers, and the right one is chosen.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { assertSamePredictions, engine, launch, nativePredictions, noWorkers, openEmbedding, serve, siteWithEmbedding, watchedPage } from './support.js';

/** A build, and the threads to ask for. @type {[string, number][]} */
const RUNS = [['simd', 1], ['relaxed', 1], ['relaxed-threads', 1], ['relaxed-threads', 2]];

describe('the engine’s builds', () => {
  /** @type {import('playwright-core').Browser} */
  let browser;
  /** @type {Awaited<ReturnType<typeof serve>>} */
  let server;
  /** @type {Awaited<ReturnType<typeof serve>>} */
  let bucket;
  before(async () => {
    const site = siteWithEmbedding();
    [browser, server, bucket] = await Promise.all([launch(), serve(site), serve(site, '--as-bucket')]);
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
    await bucket?.stop();
  });

  test('are as small as a page wants them', () => {
    for (const [name, { bytes }] of /** @type {[string, any][]} */ (Object.entries(engine.builds))) {
      assert.ok(bytes <= 2_000_000, `${name} has ${bytes} bytes`);
    }
  });

  // The library's test compares all texts; these few show that a build computes the same, and long ones with them, whose
  // attention is another.
  const expected = nativePredictions().filter(({ text }, index) => index % 5 === 0 || text.length > 1000);
  const texts = expected.map(({ text }) => text);

  for (const [build, threads] of RUNS) {
    test(`${build} with ${threads} of 2 gives the answers of pagebert predict`, { timeout: 300_000 }, async (t) => {
      const { page, context, requests, troubles } = await watchedPage(browser);
      await openEmbedding(page, server.url);
      assert.deepEqual(await page.evaluate((options) => /** @type {any} */ (globalThis).load(options), { build, threads }), { build, threads });
      assert.equal(page.workers().length, threads, 'a worker for each thread');
      const predictions = await page.evaluate((texts) => /** @type {any} */ (globalThis).classifier.classifyMany(texts), texts);
      assertSamePredictions(expected, predictions);
      const ms = predictions.reduce((/** @type {number} */ sum, /** @type {any} */ { ms }) => sum + ms, 0);
      const tokens = predictions.reduce((/** @type {number} */ sum, /** @type {any} */ { tokens }) => sum + tokens, 0);
      t.diagnostic(`${build}, ${threads} of 2: ${tokens} tokens in ${Math.round(ms)} ms, ${Math.round(tokens / ms * 1000)} tokens/s`);

      for (const worker of page.workers()) {
        // A thread waits within the engine and answers no questions.
        if (worker.url().endsWith('thread.js')) continue;
        assert.equal(await worker.evaluate(() => typeof globalThis.fetch), 'undefined', 'no network');
      }
      await page.evaluate(() => /** @type {any} */ (globalThis).classifier.close());
      await noWorkers(page);
      assert.deepEqual(requests.filter((url) => !url.startsWith(server.url)), [], 'its own origin alone, and no blob');
      assert.deepEqual(troubles, []);
      await context.close();
    });
  }

  test('a thread that sleeps is woken as a text is sent, unless that is short', async () => {
    const { page, context, troubles } = await watchedPage(browser);
    await openEmbedding(page, server.url);
    await page.evaluate((options) => /** @type {any} */ (globalThis).load(options), { build: 'relaxed-threads', threads: 2 });
    const woken = await page.evaluate(async () => {
      const { classifier } = /** @type {any} */ (globalThis);
      /** @type {number[]} */
      const woken = [];
      const notify = Atomics.notify.bind(Atomics);
      Atomics.notify = (/** @type {any} */ ...where) => {
        woken.push(notify(.../** @type {[Int32Array<SharedArrayBuffer>, number]} */ (where)));
        return woken[woken.length - 1];
      };
      for (const text of ['Words. '.repeat(100), 'A few words.', 'Many words. '.repeat(100)]) {
        // Long enough for a thread to fall asleep.
        await new Promise((resolve) => setTimeout(resolve, 500));
        await classifier.classify(text);
      }
      return woken;
    });
    assert.deepEqual(woken, [1, 1], 'one thread each for two of three texts');
    assert.deepEqual(troubles, []);
    await context.close();
  });

  /** What is asked for on a page of so many cores, isolated or not, and what comes. @type {[any, number, boolean, any][]} */
  const CHOICES = [
    [{}, 2, true, { build: 'relaxed', threads: 1 }],
    [{}, 3, true, { build: 'relaxed-threads', threads: 2 }],
    [{ threads: 1 }, 3, true, { build: 'relaxed', threads: 1 }],
    [{ threads: 2 }, 2, true, { build: 'relaxed-threads', threads: 2 }],
    [{ threads: NaN }, 8, true, { build: 'relaxed', threads: 1 }],
    [{ threads: 99, build: 'simd' }, 2, true, { build: 'simd', threads: 1 }],
    [{ threads: 4 }, 8, false, { build: 'relaxed', threads: 1 }],
    [{ build: 'relaxed-threads' }, 8, false, 'unsupported'],
    [{ build: 'fastest' }, 8, true, 'unsupported'],
  ];

  for (const [options, cores, isolated, wanted] of CHOICES) {
    test(`${JSON.stringify(options)} on ${cores} cores, ${isolated ? '' : 'not '}isolated: ${JSON.stringify(wanted)}`, async () => {
      const { page, context } = await watchedPage(browser, { cores });
      await openEmbedding(page, isolated ? server.url : bucket.url);
      assert.equal(await page.evaluate(() => crossOriginIsolated), isolated);
      const { value, code } = await page.evaluate((options) => {
        const { outcome, load } = /** @type {any} */ (globalThis);
        return outcome(load(options));
      }, options);
      assert.deepEqual(value ?? code, wanted);
      await context.close();
    });
  }
});
