// The page as a person uses it.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { answerTo, launch, manifest, openReady, serve, SITE, watchedPage } from './support.js';

describe('the page', () => {
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

  test('answers what is typed, from its own origin alone, with a clean console', async () => {
    const { page, context, requests, troubles } = await watchedPage(browser);
    await openReady(page, server.url);
    const requestsToLoad = requests.length;
    assert.match(await page.textContent('#loading-bytes') ?? '', /^(\d+\.\d) MB of \1 MB$/, 'all bytes were counted');

    await page.locator('#text').pressSequentially('A warm and funny film.', { delay: 15 });
    await page.locator('#answer[data-view="result"][aria-busy="false"]').waitFor();
    const label = await page.textContent('#label') ?? '';
    assert.ok(manifest.labels.includes(label), `${label} is one of the bundle's labels`);
    assert.match(await page.textContent('#score') ?? '', /%$/);
    assert.match(await page.textContent('#cost') ?? '', /ms · [\d,]+ tokens/);

    const rows = await page.locator('#scores li').evaluateAll((items) => items.map((item) => ({
      name: item.querySelector('.name')?.textContent,
      value: item.querySelector('.value')?.textContent,
    })));
    assert.equal(rows.length, Math.min(manifest.labels.length, 8), 'every class has a row');
    assert.deepEqual(rows[0], { name: label, value: await page.textContent('#score') }, 'the best class comes first');
    await page.waitForFunction((text) => document.getElementById('announcement')?.textContent?.startsWith(text), label);

    assert.deepEqual(requests.filter((url) => !url.startsWith(server.url)), [], 'no request left the origin');
    assert.equal(requests.length, requestsToLoad, 'typing makes no request');
    assert.deepEqual(troubles, []);
    await context.close();
  });

  test('goes on without a connection once it is ready', async () => {
    const { page, context } = await watchedPage(browser);
    await openReady(page, server.url);
    await context.setOffline(true);
    assert.ok(manifest.labels.includes((await answerTo(page, 'Nobody is listening.')).label));
    await context.close();
  });

  test('lets the last keystroke win', async () => {
    const { page, context } = await watchedPage(browser);
    await openReady(page, server.url);
    const alone = await answerTo(page, 'short');
    await page.fill('#text', 'a dull and lifeless story '.repeat(500));
    await page.locator('#answer[aria-busy="true"]').waitFor();
    const raced = await answerTo(page, 'short');
    assert.deepEqual(raced, alone);
    // The answer to the text before must not arrive late, either.
    await page.waitForTimeout(500);
    assert.equal(await page.textContent('#label'), alone.label);
    assert.equal(await page.textContent('#score'), alone.score);
    await context.close();
  });

  test('reads a long text when asked to, window by window, and can be cancelled', async () => {
    const { page, context, troubles } = await watchedPage(browser);
    await openReady(page, server.url);
    await page.fill('#text', 'a story that goes on and on '.repeat(40_000));
    await page.locator('#answer[data-view="long"]').waitFor();
    assert.match(await page.textContent('#long-text') ?? '', /1,120,000 characters/);
    await page.click('#classify');
    await page.locator('#answer[data-view="reading"]').waitFor();
    assert.match(await page.textContent('#reading-text') ?? '', /^Reading: [\d,]+ of [\d,]+ windows$/);
    assert.equal(await page.getAttribute('#reading-bar', 'role'), 'progressbar');
    await page.keyboard.press('Escape');
    await page.locator('#answer[data-view="long"][aria-busy="false"]').waitFor();
    assert.ok(manifest.labels.includes((await answerTo(page, 'Short again.')).label), 'the engine is free at once');
    assert.deepEqual(troubles, []);
    await context.close();
  });

  test('is empty again after Clear, and works by keyboard', async () => {
    const { page, context } = await watchedPage(browser);
    await openReady(page, server.url);
    await answerTo(page, 'Some text.');
    await page.keyboard.press('Control+Enter');
    await page.locator('#answer[data-view="result"][aria-busy="false"]').waitFor();
    await page.focus('#clear');
    await page.keyboard.press('Enter');
    await page.locator('#answer[data-view="empty"]').waitFor();
    assert.equal(await page.evaluate(() => document.activeElement?.id), 'text', 'the keyboard is back in the text');
    await context.close();
  });

  test('answers a text that was typed while the model was loading', async () => {
    const { page, context } = await watchedPage(browser);
    // The weights wait until the text is there.
    const typed = deferred();
    await page.route(`**/${manifest.files.model.path}`, async (route) => {
      await typed.promise;
      await route.continue();
    });
    await page.goto(server.url);
    await page.locator('#answer[data-view="loading"]').waitFor();
    await page.fill('#text', 'An impatient text.');
    typed.resolve();
    await page.locator('#answer[data-view="result"]').waitFor();
    await context.close();
  });

  test('tells about the model and about privacy', async () => {
    const { page, context } = await watchedPage(browser);
    await openReady(page, server.url);
    await page.getByText('About this model').click();
    const facts = await page.textContent('#facts') ?? '';
    for (const label of manifest.labels.slice(0, 24)) assert.ok(facts.includes(label));
    if (manifest.metrics) assert.match(facts, /Accuracy\d+\.\d%/);
    await page.getByText('Your text stays in this page').click();
    assert.ok(await page.getByText('never sent, stored or logged').isVisible());
    await context.close();
  });
});

/** Promise.withResolvers, which Node has from 22 on. */
function deferred() {
  let resolve = () => {};
  const promise = new Promise((settle) => { resolve = () => settle(undefined); });
  return { promise, resolve };
}
