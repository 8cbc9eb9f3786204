// What the engine takes and gives back, and a text as long as a book.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { EMBEDDING, SITE, copyOfSite, launch, manifest, openEmbedding, serve, siteWithEmbedding, watchedPage } from './support.js';

const MB = 1e6;
/** The weights as the engine computes with them: floats of 32 bits; integers in a byte each, but the word table as it is stored. */
const UNPACKED_BYTES = unpackedBytes();
/** How much memory the engine may take for them. */
const MOST = 1.6;
const BOOK = 'The story goes on and on, and nobody knows how it will end. '.repeat(100_000 / 12);

/** A page that opens engines and closes them, one and then three more; its title says how far it is, a file how far the test. */
const UNWATCHED = `
import { loadClassifier } from './pagebert.js';
const wait = () => new Promise((resolve) => setTimeout(resolve, 200));
async function openAndClose() {
  const classifier = await loadClassifier('./model/', { threads: 2 });
  await classifier.classify('Once.');
  if (classifier.threads !== 2) throw new Error(classifier.threads + ' threads');
  classifier.close();
}
async function stage(name, engines) {
  try {
    for (let engine = 0; engine < engines; engine++) await openAndClose();
    for (let round = 0; round < 20; round++) {
      gc();
      await wait();
    }
    document.title = name + ' closed';
    while (!(await fetch(name + '.measured', { cache: 'no-store' })).ok) await wait();
  } catch (error) {
    document.title = name + ': ' + error;
  }
}
await stage('first', 1);
await stage('more', 3);
`;

function unpackedBytes() {
  const { num_hidden_layers: layers, hidden_size: hidden, intermediate_size: wide } = manifest.config;
  const file = fs.readFileSync(path.join(SITE, 'model', manifest.files.model.path));
  const header = JSON.parse(file.subarray(8, 8 + Number(file.readBigUInt64LE(0))).toString());
  let bytes = manifest.precision === 'int8' ? layers * hidden * (4 * hidden + 2 * wide) : 0;
  for (const [name, tensor] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    const { dtype, data_offsets: [start, end] } = tensor;
    if (dtype !== 'U8') bytes += (end - start) * (dtype === 'F16' ? 2 : 1);
    else if (name.includes('word_embeddings')) bytes += end - start;
  }
  return bytes;
}

/**
 * The bytes in memory of each process that runs a page, or will run the next one.
 * @param {import('playwright-core').CDPSession} session
 */
async function residentSizes(session) {
  const { processInfo } = await session.send('SystemInfo.getProcessInfo');
  return processInfo.filter(({ type }) => type === 'renderer').map(({ id }) => Number(fs.readFileSync(`/proc/${id}/statm`, 'utf8').split(' ')[1]) * 4096);
}

describe('memory and time', () => {
  /** @type {import('playwright-core').Browser} */
  let browser;
  /** @type {Awaited<ReturnType<typeof serve>>} */
  let server;
  /** @type {import('playwright-core').Page} */
  let page;
  before(async () => {
    [browser, server] = await Promise.all([launch(), serve(siteWithEmbedding())]);
    ({ page } = await watchedPage(browser));
    await openEmbedding(page, server.url);
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
  });

  async function residentBytes() {
    const session = await browser.newBrowserCDPSession();
    const sizes = await residentSizes(session);
    await session.detach();
    return sizes.reduce((sum, bytes) => sum + bytes, 0);
  }

  test('the engine takes little more than the weights, and no more with each text', { timeout: 300_000 }, async (t) => {
    await page.evaluate(() => /** @type {any} */ (globalThis).load({ threads: 1 }));
    const { loaded, largest, after } = await page.evaluate(async () => {
      const { classifier } = /** @type {any} */ (globalThis);
      const loaded = await classifier.memoryBytes();
      // Each asks for larger arrays than the one before.
      for (const words of [1, 20, 60, 120, 250, 400, 1000]) await classifier.classify('word '.repeat(words));
      const largest = await classifier.memoryBytes();
      for (let round = 0; round < 200; round++) await classifier.classify('some words, '.repeat(1 + (round * 7) % 40));
      await classifier.classify('word '.repeat(1000));
      return { loaded, largest, after: await classifier.memoryBytes() };
    });
    t.diagnostic(`weights ${(UNPACKED_BYTES / MB).toFixed(1)} MB; loaded ${(loaded / MB).toFixed(1)} MB; after the longest window ${(largest / MB).toFixed(1)} MB`);
    assert.ok(largest <= UNPACKED_BYTES * MOST, `${largest} bytes for ${UNPACKED_BYTES} of weights`);
    assert.equal(after, largest);
  });

  test('a long text leaves the page responsive, says how far it is, and can be cancelled', { timeout: 120_000 }, async () => {
    const { code, progress, longTasks, cancelledIn } = await page.evaluate(async (book) => {
      const { classifier, outcome } = /** @type {any} */ (globalThis);
      /** @type {number[]} */
      const longTasks = [];
      const observer = new PerformanceObserver((list) => longTasks.push(...list.getEntries().map(({ duration }) => duration)));
      observer.observe({ entryTypes: ['longtask'] });
      const controller = new AbortController();
      /** @type {any[]} */
      const progress = [];
      let cancelled = 0;
      const { code } = await outcome(classifier.classify(book, {
        signal: controller.signal,
        onProgress: (/** @type {any} */ event) => {
          progress.push(event);
          if (progress.length < 3) return;
          cancelled = performance.now();
          controller.abort();
        },
      }));
      await classifier.classify('Short again.');
      const cancelledIn = performance.now() - cancelled;
      longTasks.push(...observer.takeRecords().map(({ duration }) => duration));
      observer.disconnect();
      return { code, progress, longTasks, cancelledIn };
    }, BOOK);
    assert.equal(code, 'aborted');
    assert.deepEqual(progress.map(({ done }) => done), [1, 2, 3]);
    assert.ok(progress[0].total > 200, `${progress[0].total} windows`);
    assert.deepEqual(longTasks, []);
    assert.ok(cancelledIn < 5000, `the engine is free ${cancelledIn} ms after cancelling`);
  });

  test('a text is cancelled while it is still being read', async () => {
    const { code, ms } = await page.evaluate(async (book) => {
      const { classifier, outcome } = /** @type {any} */ (globalThis);
      const controller = new AbortController();
      const started = performance.now();
      const waiting = outcome(classifier.classify(book.repeat(10), { signal: controller.signal }));
      setTimeout(() => controller.abort(), 50);
      const { code } = await waiting;
      await classifier.classify('Short again.');
      return { code, ms: performance.now() - started };
    }, BOOK);
    assert.equal(code, 'aborted');
    assert.ok(ms < 5000, `${ms} ms`);
  });

  test('close gives it all back', { skip: !fs.existsSync('/proc/self/statm') }, async (t) => {
    const before = await residentBytes();
    await page.evaluate(() => /** @type {any} */ (globalThis).classifier.close());
    let freed = 0;
    for (let tries = 0; freed < UNPACKED_BYTES && tries < 100; tries++) {
      await page.waitForTimeout(100);
      freed = before - await residentBytes();
    }
    t.diagnostic(`${(freed / MB).toFixed(1)} MB were given back`);
    assert.ok(freed >= UNPACKED_BYTES, `only ${freed} bytes`);
  });

  test('close gives threads’ memory back, too', { timeout: 120_000, skip: !fs.existsSync('/proc/self/statm') }, async (t) => {
    const site = copyOfSite((folder) => {
      fs.writeFileSync(path.join(folder, 'unwatched.html'), EMBEDDING.replace('</body>', '<script type="module" src="unwatched.js"></script></body>'));
      fs.writeFileSync(path.join(folder, 'unwatched.js'), UNWATCHED);
    });
    // The tools of a watched page keep what it downloads, some 15 MB an engine: nobody watches this one but by its title.
    const [browser, server] = await Promise.all([launch('--js-flags=--expose-gc'), serve(site)]);
    const session = await browser.newBrowserCDPSession();
    try {
      const { browserContextId } = await session.send('Target.createBrowserContext');
      const { targetId } = await session.send('Target.createTarget', { url: `${server.url}unwatched.html`, browserContextId });
      const title = async () => (await session.send('Target.getTargetInfo', { targetId })).targetInfo.title;
      const closed = [];
      for (const stage of ['first', 'more']) {
        while (!(await title()).startsWith(stage)) await page.waitForTimeout(100);
        assert.equal(await title(), `${stage} closed`);
        const sizes = await residentSizes(session);
        closed.push(Math.max(...sizes));
        fs.writeFileSync(path.join(site, `${stage}.measured`), '');
      }
      const [first, more] = /** @type {[number, number]} */ (closed);
      t.diagnostic(`${(first / MB).toFixed(1)} MB after one engine, ${(more / MB).toFixed(1)} MB after four`);
      assert.ok(more - first <= UNPACKED_BYTES, `${more - first} bytes are left of three engines`);
    } finally {
      await Promise.all([browser.close(), server.stop()]);
    }
  });
});
