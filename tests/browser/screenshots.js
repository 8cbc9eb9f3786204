// Pictures of the page: docs/screenshot.png for the README, and with a folder as argument the states that deserve a look.
//
//   node screenshots.js [FOLDER]

import path from 'node:path';
import { answerTo, here, launch, openReady, serve, SITE, watchedPage } from './support.js';

const TEXT = 'It starts slowly and one of the subplots goes nowhere, but the two leads are wonderful together, the dialogue is sharp, and the last half hour is as moving as anything I have seen this year. I walked home smiling.';
const DESKTOP = { viewport: { width: 1200, height: 720 }, deviceScaleFactor: 2 };
const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true };
const folder = process.argv[2];

const [browser, server] = await Promise.all([launch(), serve(SITE)]);

/**
 * @param {string} file
 * @param {import('playwright-core').BrowserContextOptions} options
 * @param {(page: import('playwright-core').Page) => Promise<unknown>} reach
 */
async function shoot(file, options, reach) {
  const { page, context } = await watchedPage(browser, options);
  await reach(page);
  await page.waitForTimeout(400);
  await page.screenshot({ path: file, fullPage: true });
  console.log(file);
  await context.close();
}

/** @param {import('playwright-core').Page} page */
async function answered(page) {
  await openReady(page, server.url);
  await answerTo(page, TEXT);
}

try {
  await shoot(path.resolve(here, '../../docs/screenshot.png'), DESKTOP, answered);
  if (folder) {
    await shoot(path.join(folder, 'dark.png'), { ...DESKTOP, colorScheme: 'dark' }, answered);
    await shoot(path.join(folder, 'phone.png'), PHONE, answered);
    await shoot(path.join(folder, 'phone-dark.png'), { ...PHONE, colorScheme: 'dark' }, answered);
    await shoot(path.join(folder, 'empty.png'), DESKTOP, (page) => openReady(page, server.url));
    await shoot(path.join(folder, 'details.png'), DESKTOP, async (page) => {
      await answered(page);
      for (const summary of await page.locator('summary').all()) await summary.click();
    });
    await shoot(path.join(folder, 'long.png'), DESKTOP, async (page) => {
      await openReady(page, server.url);
      await page.fill('#text', TEXT.repeat(2000));
    });
    await shoot(path.join(folder, 'reading.png'), DESKTOP, async (page) => {
      await openReady(page, server.url);
      await page.fill('#text', TEXT.repeat(2000));
      await page.click('#classify');
      await page.locator('#answer[data-view="reading"]').waitFor();
    });
    await shoot(path.join(folder, 'failed.png'), DESKTOP, async (page) => {
      await page.route('**/model/manifest.json', (route) => route.fulfill({ status: 404 }));
      await page.goto(server.url);
      await page.getByRole('alert').waitFor();
    });
    await shoot(path.join(folder, 'loading.png'), PHONE, async (page) => {
      await page.route('**/model/model*', () => {});
      await page.goto(server.url);
      await page.waitForTimeout(1000);
    });
  }
} finally {
  await browser.close();
  await server.stop();
}
