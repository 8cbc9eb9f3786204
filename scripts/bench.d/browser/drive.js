// Drives Chromium for scripts/bench.d/browser.py: node drive.js JOB.json, where the job names its case, the folders to
// serve and what to measure. Prints its figures as a line of JSON.

import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { startServer, twinOf } from './server.js';

/** What a job must have; each case has more of its own. @typedef {{case: string, npm: string, chromium: string, site: string, model: string, twins: string, [field: string]: any}} Job */

/** @type {Job} */
const job = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
/** @type {typeof import('playwright-core')} */
const { chromium } = createRequire(path.join(job.npm, 'package.json'))('playwright-core');

/** From a browser's start until it does nothing by itself. */
const SETTLING_MS = 3000;

/** As the browser tests start it. */
function launch() {
  return chromium.launch({
    executablePath: job.chromium,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
}

/** @param {string} name */
const packageOf = (name) => path.join(job.npm, 'node_modules', name);

/** The ONNX Runtime that transformers.js brings along: another version than the newest. */
function transformersRuntime() {
  const own = path.join(packageOf('@huggingface/transformers'), 'node_modules/onnxruntime-web');
  return fs.existsSync(own) ? own : packageOf('onnxruntime-web');
}

/** @param {string} [twins] */
function serve(twins) {
  return startServer({
    twins,
    mounts: {
      '/site/': job.site,
      '/pages/': path.join(path.dirname(fileURLToPath(import.meta.url)), 'pages'),
      '/onnx/model/': job.model,
      '/ort/': path.join(packageOf('onnxruntime-web'), 'dist'),
      '/transformers/': path.join(packageOf('@huggingface/transformers'), 'dist'),
      '/transformers-ort/': path.join(transformersRuntime(), 'dist'),
    },
  });
}

/** The large files of all pages; the server makes twins of the others when they are asked for. */
function filesToLoad() {
  const site = fs.readdirSync(job.site, { recursive: true, encoding: 'utf8' }).map((name) => path.join(job.site, name));
  const runtime = path.join(transformersRuntime(), 'dist/ort-wasm-simd-threaded');
  return [
    ...site.filter((file) => fs.statSync(file).size > 1e5 && !file.endsWith('.br')),
    path.join(job.model, 'onnx/model_quantized.onnx'),
    path.join(job.model, 'tokenizer.json'),
    path.join(packageOf('@huggingface/transformers'), 'dist/transformers.min.js'),
    `${runtime}.wasm`,
    `${runtime}.asyncify.wasm`,
  ];
}

/** @param {string} text */
const say = (text) => process.stderr.write(`bench: ${text}\n`);

/** A page with the peers' script, ready. @param {import('playwright-core').Browser} browser @param {string} origin */
async function peersPage(browser, origin) {
  const page = await browser.newPage();
  page.on('console', (message) => message.type() === 'error' && say(`console: ${message.text()}`));
  await page.goto(`${origin}/pages/peers.html`);
  await page.waitForFunction(() => 'bench' in window);
  if (!(await page.evaluate(() => /** @type {any} */ (window).bench.isolated))) throw new Error('the page is not isolated');
  return page;
}

/** @type {Record<string, () => Promise<any>>} */
const cases = {
  /** Peers side by side in one page; every peer gets every text. */
  async latency() {
    const server = await serve();
    const browser = await launch();
    const page = await peersPage(browser, server.origin);
    const about = await page.evaluate((peers) => /** @type {any} */ (window).bench.load(peers), job.peers);
    /** @type {Record<string, any>} */
    const tokens = {};
    for (const [count, texts] of Object.entries(job.texts)) {
      say(`${job.title}: ${count} tokens`);
      const task = { texts, untimed: job.untimed, pause: job.pause };
      tokens[count] = await page.evaluate((task) => /** @type {any} */ (window).bench.takeTurns(task), task);
    }
    const version = browser.version();
    await browser.close();
    server.close();
    return { chromium: version, about, tokens };
  },

  /** Each page in a browser that has never seen it: bytes and times until it shows a label. */
  async loads() {
    const server = await serve(job.twins);
    /** @type {Record<string, any>} */
    const found = {};
    // Before the browser waits for them.
    for (const file of filesToLoad()) {
      await twinOf(file, job.twins, (name) => say(`compressing ${name} (once: a large one takes minutes)`));
    }
    for (const page of job.pages) found[page.name] = { ...(await load(server, page, undefined)), ms: {} };
    for (const { name, megabits } of job.lines) {
      for (let round = 0; round < job.rounds; round++) {
        for (const page of job.pages) {
          if (page.untimed) continue;
          const { ms, label, wire } = await load(server, page, megabits);
          if (label !== found[page.name].label) throw new Error(`${page.name} answers ${label}, then ${found[page.name].label}`);
          (found[page.name].ms[name] ??= []).push(ms);
          say(`cold, ${name}, round ${round + 1} of ${job.rounds}: ${page.name}: ${(ms / 1000).toFixed(2)} s, ${wire.toLocaleString('en')} bytes`);
        }
      }
    }
    server.close();
    return found;
  },

  /** Logits of every text in each of our builds. */
  async accuracy() {
    const server = await serve();
    const browser = await launch();
    const page = await peersPage(browser, server.origin);
    const found = [];
    for (const settings of job.builds) {
      say(`accuracy: ${settings.build}, ${settings.threads} threads`);
      found.push(await page.evaluate((task) => /** @type {any} */ (window).bench.logits(task), { settings, texts: job.texts }));
    }
    await browser.close();
    server.close();
    return found;
  },

  /** Each file as it is and as its brotli twin. */
  async sizes() {
    const found = [];
    for (const { title, file } of job.files) {
      const from = file.replace(/^npm:/, `${job.npm}/node_modules/`).replace(/^transformers-ort:/, `${transformersRuntime()}/dist/`);
      const { bytes, compressed } = await twinOf(from, job.twins, (name) => say(`compressing ${name}`));
      found.push({ title, name: path.basename(from), bytes, compressed });
    }
    return found;
  },

  /** What is installed. */
  async versions() {
    const browser = await launch();
    const version = browser.version();
    await browser.close();
    /** @param {string} folder */
    const of = (folder) => JSON.parse(fs.readFileSync(path.join(folder, 'package.json'), 'utf8')).version;
    return {
      chromium: version,
      node: process.version,
      onnxruntime_web: of(packageOf('onnxruntime-web')),
      transformers_js: of(packageOf('@huggingface/transformers')),
      transformers_js_onnxruntime: of(transformersRuntime()),
    };
  },
};

/**
 * @param {Awaited<ReturnType<typeof serve>>} server
 * @param {{url: string, asTheyCome?: boolean}} visited
 * @param {number | undefined} megabits
 */
async function load(server, { url, asTheyCome }, megabits) {
  const browser = await launch();
  try {
    const page = await browser.newPage();
    page.setDefaultTimeout(5 * 60_000);
    /** @type {Promise<never>} */
    const failed = new Promise((_, reject) => page.on('pageerror', (error) => reject(new Error(`${url}: ${error}`))));
    failed.catch(() => {});
    // Who visits a page has not started the browser for it: that keeps a core busy for about a second.
    await new Promise((resolve) => setTimeout(resolve, SETTLING_MS));
    server.begin(megabits, asTheyCome);
    await page.goto(server.origin + url);
    const answered = url.startsWith('/site/') ? firstLabelOfSite(page) : page.waitForFunction(() => /** @type {any} */ (window).answered).then((handle) => handle.jsonValue());
    const { label, ms } = await Promise.race([answered, failed]);
    return { label, ms, ...server.counted() };
  } finally {
    await browser.close();
  }
}

/** The whole page, with a text typed into it. @param {import('playwright-core').Page} page */
async function firstLabelOfSite(page) {
  await page.locator('#answer[data-view="empty"]').waitFor();
  await page.fill('#text', 'What a film!');
  await page.locator('#answer[data-view="result"][aria-busy="false"]').waitFor();
  return { label: await page.textContent('#label'), ms: await page.evaluate(() => performance.now()) };
}

// A pipe takes a long line in pieces.
process.stdout.write(`${JSON.stringify(await cases[job.case]())}\n`, () => process.exit(0));
