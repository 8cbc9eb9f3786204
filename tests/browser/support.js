// What the browser tests share: the site under test and broken copies of it, `pagebert serve`, and Chromium.
//
// From the environment:
//   PAGEBERT_BIN       the pagebert command                                (default: target/release/pagebert)
//   PAGEBERT_SITE      the site, made by `pagebert site`                   (default: target/demo/site)
//   PAGEBERT_ROWS      texts to classify natively and in the page: JSON Lines with `text`; lines that carry `scores`
//                      are taken as native predictions already             (default: texts.jsonl beside this file)
//   PAGEBERT_CHROMIUM  the browser                                         (default: chromium from the path)

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

// Node 18, which Debian 12 has, knows no import.meta.dirname.
export const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.resolve(here, '../..');
export const BIN = path.resolve(process.env.PAGEBERT_BIN ?? path.join(root, 'target/release/pagebert'));
export const SITE = path.resolve(process.env.PAGEBERT_SITE ?? path.join(root, 'target/demo/site'));
const ROWS = path.resolve(process.env.PAGEBERT_ROWS ?? path.join(here, 'texts.jsonl'));

for (const [what, file] of [['PAGEBERT_BIN', BIN], ['PAGEBERT_SITE', path.join(SITE, 'model/manifest.json')], ['PAGEBERT_ROWS', ROWS]]) {
  if (!fs.existsSync(file)) throw new Error(`${file} does not exist: set ${what}, or run scripts/test, which makes everything`);
}

const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'pagebert-browser-'));
process.setMaxListeners(0);
process.on('exit', () => fs.rmSync(scratch, { recursive: true, force: true }));
let copies = 0;

export const manifest = JSON.parse(fs.readFileSync(path.join(SITE, 'model/manifest.json'), 'utf8'));
export const engine = JSON.parse(fs.readFileSync(path.join(SITE, 'engine.json'), 'utf8'));

/**
 * A copy of the site to change. Files are hard links where that works, so change them through `rewrite` only.
 * @param {(site: string) => void} change
 */
export function copyOfSite(change) {
  const copy = path.join(scratch, `site-${++copies}`);
  for (const entry of fs.readdirSync(SITE, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const from = path.join(entry.parentPath ?? entry.path, entry.name);
    const to = path.join(copy, path.relative(SITE, from));
    fs.mkdirSync(path.dirname(to), { recursive: true });
    try {
      fs.linkSync(from, to);
    } catch {
      fs.copyFileSync(from, to);
    }
  }
  change(copy);
  return copy;
}

/** @param {string} file @param {(content: Buffer) => string | Buffer} change */
export function rewrite(file, change) {
  const content = fs.readFileSync(file);
  fs.rmSync(file);
  // Precompressed twins would be served in place of the changed file.
  for (const ending of ['.br', '.gz']) fs.rmSync(file + ending, { force: true });
  fs.writeFileSync(file, change(content));
}

/** @param {string} file */
export function remove(file) {
  for (const ending of ['', '.br', '.gz']) fs.rmSync(file + ending, { force: true });
}

function freePort() {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = /** @type {net.AddressInfo} */ (server.address());
      server.close(() => resolve(port));
    });
  });
}

/**
 * `pagebert serve`.
 * @param {string} site
 * @param {string[]} options
 * @returns {Promise<{url: string, stop: () => Promise<void>}>}
 */
export async function serve(site, ...options) {
  const port = await freePort();
  const child = spawn(BIN, ['serve', site, '--port', String(port), ...options], { stdio: ['ignore', 'ignore', 'pipe'] });
  // A test that fails before it stops its server must not keep the run alive.
  child.unref();
  /** @type {any} */ (child.stderr).unref();
  process.once('exit', () => child.kill());
  let stderr = '';
  child.stderr.on('data', (chunk) => { stderr += chunk; });
  const url = `http://127.0.0.1:${port}/`;
  for (let tries = 0; tries < 100; tries++) {
    if (child.exitCode !== null) break;
    try {
      await fetch(url);
      const ended = new Promise((resolve) => { child.once('exit', resolve); });
      return {
        url,
        async stop() {
          if (child.exitCode !== null || child.signalCode !== null) return;
          // What is waited for must keep the run alive.
          child.ref();
          if (child.kill('SIGKILL')) await ended;
        },
      };
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  child.kill();
  throw new Error(`pagebert serve ${site} did not answer:\n${stderr}`);
}

/** @param {string[]} args more of them */
export function launch(...args) {
  return chromium.launch({
    executablePath: process.env.PAGEBERT_CHROMIUM ?? findChromium(),
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', ...args],
  });
}

function findChromium() {
  for (const name of ['chromium', 'chromium-browser', 'google-chrome']) {
    const found = spawnSync('which', [name], { encoding: 'utf8' }).stdout.trim();
    if (found) return found;
  }
  throw new Error('there is no Chromium: install it (tests/browser/run does) or set PAGEBERT_CHROMIUM');
}

/**
 * A page that is watched: every request, console message, uncaught error and policy violation is written down. It has
 * no service worker unless it is asked for: requests that one makes cannot be held up or answered by a test.
 * @param {import('playwright-core').Browser} browser
 * @param {import('playwright-core').BrowserContextOptions & {withKeeper?: boolean, cores?: number}} [options] with two
 *   cores, whatever the machine has, the engine runs one thread
 */
export async function watchedPage(browser, { withKeeper = false, cores = 2, ...options } = {}) {
  const context = await browser.newContext(options);
  await context.addInitScript((cores) => {
    Object.defineProperty(Navigator.prototype, 'hardwareConcurrency', { get: () => cores });
  }, cores);
  if (!withKeeper) await context.addInitScript(() => { delete (/** @type {any} */ (Navigator.prototype).serviceWorker); });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  /** @type {string[]} */
  const requests = [];
  /** @type {string[]} */
  const troubles = [];
  context.on('request', (request) => requests.push(request.url()));
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) troubles.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => troubles.push(`uncaught: ${error}`));
  await page.exposeFunction('reportViolation', (/** @type {string} */ text) => troubles.push(`policy: ${text}`));
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => {
      // @ts-ignore: exposed above
      reportViolation(`${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  return { page, context, requests, troubles };
}

/** The page, ready to answer. @param {import('playwright-core').Page} page @param {string} url */
export async function openReady(page, url) {
  await page.goto(url);
  await page.locator('#answer[data-view="empty"]').waitFor();
}

/** Types into the page and waits for the answer to that very text. @param {import('playwright-core').Page} page @param {string} text */
export async function answerTo(page, text) {
  await page.fill('#text', text);
  await page.locator('#answer[data-view="result"][aria-busy="false"]').waitFor();
  return { label: await page.textContent('#label'), score: await page.textContent('#score') };
}

/**
 * Fails if a worker is still there after five seconds: the browser tells of a terminated one a little later.
 * @param {import('playwright-core').Page} page
 */
export async function noWorkers(page) {
  for (let tries = 0; page.workers().length && tries < 50; tries++) await page.waitForTimeout(100);
  assert.equal(page.workers().length, 0, 'no worker is left behind');
}

/** A page like that of somebody who embeds the library: an empty document with the site's policy. */
export const EMBEDDING = `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Embedding</title><link rel="icon" href="icon.svg">
<meta http-equiv="Content-Security-Policy" content="default-src 'self'; script-src 'self' 'wasm-unsafe-eval'"></head><body></body></html>`;

/**
 * An empty page of a program that uses the library; `load(options)` gives it a classifier.
 * @param {import('playwright-core').Page} page
 * @param {string} url of a site with `embedding.html`, see {@link siteWithEmbedding}
 */
export async function openEmbedding(page, url) {
  await page.goto(`${url}embedding.html`);
  await page.evaluate(() => {
    const scope = /** @type {any} */ (globalThis);
    scope.load = async (/** @type {any} */ options) => {
      const { loadClassifier } = await import(new URL('pagebert.js', document.baseURI).href);
      scope.classifier = await loadClassifier('./model/', options);
      const { build, threads } = scope.classifier;
      return { build, threads };
    };
    // Failures cross into the test as plain objects.
    scope.outcome = (/** @type {Promise<any>} */ promise) => promise.then(
      (value) => ({ value }),
      (error) => ({ error: error.name, code: error.code, message: error.message }),
    );
  });
}

export function siteWithEmbedding() {
  return copyOfSite((folder) => fs.writeFileSync(path.join(folder, 'embedding.html'), EMBEDDING));
}

/**
 * Holds the page's answers against the command's.
 * @param {{text: string, label: string, scores: {label: string, score: number}[], logits: number[], tokens: number, windows: number}[]} expected
 * @param {any[]} predictions
 * @returns {number} the largest difference of a probability
 */
export function assertSamePredictions(expected, predictions) {
  let worst = 0;
  assert.equal(predictions.length, expected.length);
  predictions.forEach((prediction, row) => {
    const native = expected[row];
    const where = `row ${row}: ${JSON.stringify(native.text.slice(0, 80))}`;
    assert.equal(prediction.label, native.label, where);
    assert.equal(prediction.tokens, native.tokens, where);
    assert.equal(prediction.windows, native.windows, where);
    assert.deepEqual(prediction.scores.map((/** @type {any} */ { label }) => label), native.scores.map(({ label }) => label), where);
    prediction.scores.forEach((/** @type {any} */ { score }, /** @type {number} */ rank) => {
      const difference = Math.abs(score - native.scores[rank].score);
      worst = Math.max(worst, difference);
      assert.ok(difference < 1e-4, `${where}: probability ${score}, natively ${native.scores[rank].score}`);
    });
    assert.equal(prediction.logits.length, manifest.labels.length, where);
    // Integers give the same bits everywhere; a float's last ones depend on the processor.
    if (manifest.precision === 'int8') assert.deepEqual(prediction.logits.map(Math.fround), native.logits.map(Math.fround), where);
    assert.ok(prediction.ms > 0, where);
  });
  return worst;
}

/**
 * Texts, and what `pagebert predict` says about them.
 * @returns {{text: string, label: string, scores: {label: string, score: number}[], logits: number[], tokens: number, windows: number}[]}
 */
export function nativePredictions() {
  const rows = jsonLines(ROWS);
  if (rows.every((row) => row.scores)) return rows;
  const input = path.join(scratch, 'rows.jsonl');
  const output = path.join(scratch, 'predictions.jsonl');
  fs.writeFileSync(input, rows.map(({ text }) => `${JSON.stringify({ text })}\n`).join(''));
  const run = spawnSync(BIN, ['predict', path.join(SITE, 'model'), '--data', input, '--out', output], { encoding: 'utf8' });
  if (run.status !== 0) throw new Error(`pagebert predict failed (${run.status}):\n${run.stderr}`);
  const predictions = jsonLines(output);
  if (predictions.length !== rows.length) throw new Error(`pagebert predict wrote ${predictions.length} rows for ${rows.length}`);
  return predictions.map((prediction, index) => ({ text: rows[index].text, ...prediction }));
}

/** @param {string} file @returns {any[]} */
function jsonLines(file) {
  return fs.readFileSync(file, 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line));
}
