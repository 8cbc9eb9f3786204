// The service worker: what it keeps, what it adds, and when it gives way.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { answerTo, copyOfSite, launch, manifest, openReady, rewrite, serve, SITE, watchedPage } from './support.js';

const MODEL = `model/${manifest.files.model.path}`;

describe('the service worker', () => {
  /** @type {import('playwright-core').Browser} */
  let browser;
  before(async () => { browser = await launch('--host-resolver-rules=MAP bucket.test 127.0.0.1'); });
  after(async () => { await browser?.close(); });

  /**
   * @param {import('node:test').TestContext} t
   * @param {string} [site]
   * @param {Parameters<typeof watchedPage>[1]} [options]
   */
  async function open(t, site = SITE, options = {}) {
    const server = await serve(site, '--as-bucket');
    t.after(() => server.stop());
    const watched = await watchedPage(browser, { withKeeper: true, ...options });
    t.after(() => watched.context.close());
    return { ...watched, server, url: server.url };
  }

  /** Everything that a visit of this kind needs is there. @param {import('playwright-core').Page} page @param {string[]} wanted */
  async function waitUntilKept(page, wanted) {
    await page.waitForFunction(async (wanted) => {
      /** @type {string[]} */
      const urls = [];
      for (const name of await caches.keys()) {
        for (const { url } of await (await caches.open(name)).keys()) urls.push(url);
      }
      return wanted.every((part) => urls.some((url) => url.includes(part)));
    }, wanted);
  }

  test('knows every file of the page', () => {
    const source = fs.readFileSync(path.join(SITE, 'sw.js'), 'utf8');
    const shell = /SHELL = \[([^\]]*)\]/.exec(source)?.[1] ?? '';
    const known = [...shell.matchAll(/'([^']+)'/g)].map(([, name]) => name).sort();
    const files = fs.readdirSync(SITE).filter((name) => /\.(js|json|css|svg)$/.test(name) && name !== 'sw.js');
    assert.deepEqual(known, [...files, 'model/manifest.json'].sort());
  });

  test('isolates the page from its second load on, on a host without headers, and reloads nothing by itself', async (t) => {
    const { page, url, requests, troubles } = await open(t, SITE, { cores: 3 });
    await openReady(page, url);
    assert.equal(await page.evaluate(() => crossOriginIsolated), false);
    await page.fill('#text', 'Typed while the service worker started.');
    await page.locator('#answer[data-view="result"]').waitFor();
    await waitUntilKept(page, ['wasm/relaxed-', 'wasm/relaxed-threads-', 'relaxed-threads.js', MODEL]);
    assert.equal(await page.inputValue('#text'), 'Typed while the service worker started.');

    await openReady(page, url);
    assert.equal(await page.evaluate(() => crossOriginIsolated), true);
    assert.ok(manifest.labels.includes((await answerTo(page, 'With two threads.')).label));
    assert.match(await page.textContent('#facts') ?? '', /relaxed-threads, 2 threads/);
    assert.deepEqual(requests.filter((request) => !request.startsWith(url)), []);
    assert.deepEqual(troubles, []);
  });

  test('makes a second visit work without a server, with threads', async (t) => {
    const { page, url, server, troubles } = await open(t, SITE, { cores: 3 });
    await openReady(page, url);
    const online = await answerTo(page, 'A warm and funny film.');
    await waitUntilKept(page, ['wasm/relaxed-threads-', 'relaxed-threads.js', MODEL, 'style.css', `${url}`]);
    await server.stop();
    await openReady(page, url);
    assert.deepEqual(await answerTo(page, 'A warm and funny film.'), online);
    assert.match(await page.textContent('#facts') ?? '', /relaxed-threads/);
    assert.deepEqual(troubles.filter((trouble) => !trouble.includes('ERR_CONNECTION_REFUSED')), []);
  });

  test('downloads the weights once', async (t) => {
    const { page, url, context } = await open(t);
    await openReady(page, url);
    await waitUntilKept(page, [MODEL]);
    /** @type {string[]} */
    const asked = [];
    context.on('request', (request) => { if (request.serviceWorker()) asked.push(request.url()); });
    await openReady(page, url);
    assert.ok(asked.some((request) => request.endsWith('model/manifest.json')), 'the manifest is asked for anew');
    assert.deepEqual(asked.filter((request) => /-[0-9a-f]{16}\./.test(request)), [], 'files with a hash are not');
  });

  test('does not keep a file that was damaged', async (t) => {
    const site = copyOfSite((folder) => rewrite(path.join(folder, MODEL), (content) => {
      content[Math.floor(content.length * 0.7)] ^= 1;
      return content;
    }));
    const { page, url } = await open(t, site);
    await page.goto(url);
    await page.getByRole('alert').waitFor();
    assert.match(await page.getByRole('alert').innerText(), /file is damaged/);
    fs.copyFileSync(path.join(SITE, MODEL), path.join(site, MODEL));
    await page.click('#retry');
    await page.locator('#answer[data-view="empty"]').waitFor();
  });

  test('removes caches of its former versions, and no others', async (t) => {
    const { page, url } = await open(t);
    await page.goto(`${url}icon.svg`);
    const strangers = ['something else', 'pagebert 0 http://elsewhere.test/'];
    await page.evaluate(async (names) => { for (const name of names) await caches.open(name); }, [`pagebert 0 ${url}`, ...strangers]);
    await openReady(page, url);
    await waitUntilKept(page, [MODEL]);
    const names = await page.evaluate(() => caches.keys());
    assert.deepEqual(names.sort(), [`pagebert 1 ${url}`, ...strangers].sort());
  });

  test('gives way to another program at its address', async (t) => {
    const site = copyOfSite(() => {});
    const { page, url } = await open(t, site);
    await openReady(page, url);
    await waitUntilKept(page, [MODEL]);
    rewrite(path.join(site, 'index.html'), () => '<!doctype html><title>Another program</title>');
    await page.goto(url);
    assert.equal(await page.title(), 'Another program');
    assert.equal(await page.evaluate(() => crossOriginIsolated), false);
    assert.deepEqual(await page.evaluate(async () => [(await navigator.serviceWorker.getRegistrations()).length, await caches.keys()]), [0, []]);
  });

  test('is not needed: over plain http there is none, and the page works', async (t) => {
    const { page, url, troubles } = await open(t);
    await openReady(page, url.replace('127.0.0.1', 'bucket.test'));
    assert.equal(await page.evaluate(() => isSecureContext || 'serviceWorker' in navigator), false);
    assert.ok(manifest.labels.includes((await answerTo(page, 'Neither hashes nor threads of the browser’s.')).label));
    assert.deepEqual(troubles, []);
  });
});
