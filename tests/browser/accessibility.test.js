// The page for everyone: axe finds nothing in any state and colour scheme, and a phone shows it without side-scrolling.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import { after, before, describe, test } from 'node:test';
import { answerTo, launch, openReady, serve, SITE, watchedPage } from './support.js';

const axe = fs.readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const PHONE = { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true };
const DESKTOP = { viewport: { width: 1280, height: 800 } };

/** States of the page, and how to get there. @type {[string, (page: import('playwright-core').Page, url: string) => Promise<unknown>][]} */
const STATES = [
  ['empty', openReady],
  ['answered, with everything unfolded', async (page, url) => {
    await openReady(page, url);
    await answerTo(page, 'A warm and funny film.');
    await page.getByText('About this model').click();
    await page.getByText('Your text stays in this page').click();
  }],
  ['asking about a long text', async (page, url) => {
    await openReady(page, url);
    await page.fill('#text', 'unbreakable'.repeat(5000));
    await page.locator('#answer[data-view="long"]').waitFor();
  }],
  ['failed', async (page, url) => {
    await page.route('**/model/manifest.json', (route) => route.fulfill({ status: 404 }));
    await page.goto(url);
    await page.getByRole('alert').waitFor();
  }],
];

describe('accessibility', () => {
  /** @type {import('playwright-core').Browser} */
  let browser;
  /** @type {Awaited<ReturnType<typeof serve>>} */
  let server;
  before(async () => {
    [browser, server] = await Promise.all([launch(), serve(SITE)]);
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
  });

  for (const [state, reach] of STATES) {
    for (const colorScheme of /** @type {const} */ (['light', 'dark'])) {
      for (const [device, options] of /** @type {const} */ ([['desktop', DESKTOP], ['phone', PHONE]])) {
        test(`${state}, ${colorScheme}, ${device}`, async () => {
          const { page, context } = await watchedPage(browser, { ...options, colorScheme, reducedMotion: 'reduce' });
          await reach(page, server.url);
          // evaluate is not bound by the page's policy, a script element would be.
          await page.evaluate(axe);
          const violations = await page.evaluate(async () => {
            const results = await /** @type {any} */ (globalThis).axe.run();
            return results.violations.map((/** @type {any} */ { id, help, nodes }) => `${id}: ${help}: ${nodes.map((/** @type {any} */ node) => `${node.html} ${node.failureSummary}`).join('; ')}`);
          });
          assert.deepEqual(violations, []);
          const { wide, visible } = await page.evaluate(() => ({ wide: document.documentElement.scrollWidth, visible: document.documentElement.clientWidth }));
          assert.ok(wide <= visible, `no horizontal scrolling: ${wide} > ${visible}`);
          await context.close();
        });
      }
    }
  }
});
