// The kernels' tiles as the engine's builds have them, against the scalar one: odd shapes, extreme numbers, bit by bit.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launch } from './support.js';

describe('tiles', () => {
  /** @type {import('playwright-core').Browser} */
  let browser;
  before(async () => {
    browser = await launch();
  });
  after(() => browser?.close());

  for (const build of ['simd', 'relaxed']) {
    test(`of ${build} give the scalar one's integers`, { timeout: 300_000 }, async (t) => {
      const file = fileURLToPath(new URL(`../../target/web/checks/${build}.wasm`, import.meta.url));
      if (!fs.existsSync(file)) return t.skip('scripts/build-web --checks builds them');
      const page = await browser.newPage();
      const found = await page.evaluate(async (base64) => {
        const module = await WebAssembly.compile(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)));
        // What it would ask of JavaScript is for other functions.
        /** @type {Record<string, Record<string, () => void>>} */
        const imports = {};
        for (const { module: from, name } of WebAssembly.Module.imports(module)) {
          (imports[from] ??= {})[name] = () => {
            throw new Error(`${from}.${name} was called`);
          };
        }
        const { exports } = await WebAssembly.instantiate(module, imports);
        try {
          // As wasm-bindgen finds it, which names it in the end.
          const name = Object.keys(exports).find((name) => name.startsWith('checkTiles'));
          /** @type {any} */ (exports)[String(name)]();
          return 'the same';
        } catch (error) {
          return String(error);
        }
      }, fs.readFileSync(file).toString('base64'));
      assert.equal(found, 'the same');
      await page.close();
    });
  }
});
