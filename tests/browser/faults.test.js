// Broken sites and browsers: each must end in a message that a person can act on.

import assert from 'node:assert/strict';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { copyOfSite, engine, launch, manifest, noWorkers, openReady, remove, rewrite, serve, SITE, watchedPage } from './support.js';

const MODEL = `model/${manifest.files.model.path}`;
const TOKENIZER = `model/${manifest.files.tokenizer.path}`;
/** What a page without threads loads. */
const BUILD = engine.builds.relaxed;

/** @param {(manifest: any) => void} change @returns {(content: Buffer) => string} */
const json = (change) => (content) => {
  const value = JSON.parse(content.toString());
  change(value);
  return JSON.stringify(value);
};

/** @param {Buffer} content */
function flipBit(content) {
  content[Math.floor(content.length * 0.7)] ^= 1;
  return content;
}

/** What is wrong, the file it happens to (none: it is removed), and what the page must say. @type {[string, string, ((content: Buffer) => string | Buffer) | null, RegExp][]} */
const FAULTS = [
  ['the manifest is missing', 'model/manifest.json', null, /file is missing.*model\/manifest\.json.*404/s],
  ['the weights are missing', MODEL, null, /file is missing.*model\/.*404/s],
  ['the tokenizer is missing', TOKENIZER, null, /file is missing.*model\/.*404/s],
  ['the engine is missing', BUILD.wasm, null, /file is missing.*wasm\/relaxed-.*404/s],
  ['engine.json is missing', 'engine.json', null, /file is missing.*engine\.json.*404/s],
  ['the worker is missing', 'worker.js', null, /worker\.js.*missing/s],
  ['the engine’s JavaScript is missing', BUILD.js, null, /engine could not be started/],
  ['the weights are cut short', MODEL, (content) => content.subarray(0, content.length - 1000), /incomplete.*should have [\d]+ bytes/s],
  ['the weights are longer than they should be', MODEL, (content) => Buffer.concat([content, Buffer.from('more')]), /incomplete.*is longer/s],
  ['one bit of the weights is wrong', MODEL, flipBit, /file is damaged/],
  ['one bit of the tokenizer is wrong', TOKENIZER, flipBit, /file is damaged/],
  ['the bundle is of a later version', 'model/manifest.json', json((value) => { value.version = 99; }), /another version.*99/s],
  ['the manifest is no JSON', 'model/manifest.json', () => '<!doctype html><title>Sign in</title>', /manifest/],
  ['the manifest is of something else', 'model/manifest.json', () => '{"name": "an app"}', /manifest|format/],
  ['the manifest names no weights', 'model/manifest.json', json((value) => { delete value.files.model; }), /model/],
  ['the configuration does not fit the weights', 'model/manifest.json', json((value) => { value.config.intermediate_size += 8; }), /shape/],
  ['the engine is cut short', BUILD.wasm, (content) => content.subarray(0, content.length / 2), /incomplete.*wasm\//s],
  ['the engine is something else of that length', BUILD.wasm, (content) => Buffer.alloc(content.length, 'no wasm '), /engine could not be started/],
  ['engine.json is no JSON', 'engine.json', () => 'nonsense', /engine\.json cannot be read/],
];

describe('the page says what is wrong when', () => {
  /** @type {import('playwright-core').Browser} */
  let browser;
  before(async () => { browser = await launch(); });
  after(async () => { await browser?.close(); });

  /**
   * A page on a server of its own; both are gone after the test.
   * @param {import('node:test').TestContext} t
   * @param {string} [site]
   * @param {Parameters<typeof watchedPage>[1]} [options]
   */
  async function open(t, site = SITE, options = {}) {
    const server = await serve(site);
    t.after(() => server.stop());
    const watched = await watchedPage(browser, options);
    t.after(() => watched.context.close());
    return { ...watched, url: server.url };
  }

  for (const [what, file, change, message] of FAULTS) {
    test(what, async (t) => {
      const { page, url } = await open(t, copyOfSite((folder) => {
        const target = path.join(folder, file);
        if (change) rewrite(target, change);
        else remove(target);
      }));
      await page.goto(url);
      const alert = page.getByRole('alert');
      await alert.waitFor();
      assert.match(await alert.innerText(), message);
      assert.ok(await page.locator('#retry').isVisible());
      assert.equal(await page.getAttribute('#answer', 'aria-busy'), 'false');
      await noWorkers(page);
    });
  }

  test('a thread is missing', async (t) => {
    const { page, url } = await open(t, copyOfSite((folder) => remove(path.join(folder, 'thread.js'))), { cores: 3 });
    await page.goto(url);
    await page.getByRole('alert').waitFor();
    assert.match(await page.getByRole('alert').innerText(), /thread\.js.*missing/s);
    await noWorkers(page);
  });

  test('the browser has no WebAssembly', async (t) => {
    const { page, url, troubles } = await open(t);
    await page.addInitScript('delete globalThis.WebAssembly');
    await page.goto(url);
    await page.getByRole('alert').waitFor();
    assert.match(await page.getByRole('alert').innerText(), /browser cannot run.*WebAssembly/s);
    assert.deepEqual(troubles, []);
  });

  test('the browser runs no scripts', async (t) => {
    const { page, url } = await open(t, SITE, { javaScriptEnabled: false });
    await page.goto(url);
    assert.ok(await page.locator('noscript p').isVisible());
    assert.ok(!await page.locator('main').isVisible());
  });

  test('the connection breaks, and tries again when asked', async (t) => {
    const { page, url } = await open(t);
    await page.route(`**/${MODEL}`, (route) => route.abort('connectionreset'), { times: 1 });
    await page.goto(url);
    await page.getByRole('alert').waitFor();
    assert.match(await page.getByRole('alert').innerText(), /could not be downloaded/);
    await page.fill('#text', 'Still here after the accident.');
    await page.click('#retry');
    await page.locator('#answer[data-view="result"]').waitFor();
    assert.equal(await page.inputValue('#text'), 'Still here after the accident.', 'what was typed is kept');
  });

  test('the engine traps while it works, and recovers when asked', async (t) => {
    // A healthy engine cannot be made to trap from outside, so its glue throws what a trap throws.
    const { page, url } = await open(t, copyOfSite((folder) => rewrite(path.join(folder, BUILD.js), (content) => `${content}
      const begin = Classifier.prototype.begin;
      Classifier.prototype.begin = function (text) {
        if (text === 'Trap.') throw new WebAssembly.RuntimeError('unreachable');
        return begin.call(this, text);
      };`)));
    await openReady(page, url);
    await page.fill('#text', 'Trap.');
    await page.getByRole('alert').waitFor();
    assert.match(await page.getByRole('alert').innerText(), /engine stopped while it worked.*unreachable/s);
    await page.fill('#text', 'Better.');
    await page.click('#retry');
    await page.locator('#answer[data-view="result"]').waitFor();
  });
});
