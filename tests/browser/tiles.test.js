// The kernels' tiles against the scalar one, and what is done to numbers in vectors against what is done to each, compiled
// as the engine's builds are: odd shapes, extreme numbers, bit by bit.
// scripts/build-web --checks makes them; PAGEBERT_CHECKS is where.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { launch } from './support.js';

const folder = process.env.PAGEBERT_CHECKS;

describe('tiles', () => {
  /** @type {import('playwright-core').Browser} */
  let browser;
  before(async () => {
    browser = await launch();
  });
  after(() => browser?.close());

  for (const build of ['simd', 'relaxed']) {
    test(`of ${build} give the scalar one's integers, and vectors single numbers' bits`, { timeout: 300_000, skip: folder === undefined && 'PAGEBERT_CHECKS is not set' }, async () => {
      const file = path.join(String(folder), `${build}.wasm`);
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
