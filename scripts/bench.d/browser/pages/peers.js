// Loads the peers side by side and lets them take turns, call by call. Driven from outside through `window.bench`.

import { loadClassifier } from '/site/pagebert.js';

/**
 * @typedef {{text: string, ids: number[]}} Text
 * @typedef {{logits: number[], tokens: number, inner: number}} Answer
 * @typedef {{about: any, classify: (text: Text) => Promise<Answer>, close: () => void}} Peer
 */

/** @param {any} settings @returns {Promise<Peer>} */
async function ours({ build, threads }) {
  const classifier = await loadClassifier('/site/model/', /** @type {any} */ ({ build, threads }));
  return {
    about: { build: classifier.build, threads: /** @type {any} */ (classifier).threads },
    async classify({ text }) {
      const { logits, tokens, windows, ms } = await classifier.classify(text);
      if (windows !== 1) throw new Error(`${windows} windows`);
      return { logits, tokens, inner: ms };
    },
    close: () => classifier.close(),
  };
}

/** @param {any} settings @returns {Promise<Peer>} */
async function ort(settings) {
  const worker = new Worker('/pages/ort-worker.js', { type: 'module' });
  /** @param {any} order @returns {Promise<any>} */
  const ask = (order) => new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => ('error' in data ? reject(new Error(data.error)) : resolve(data.value));
    worker.onerror = (event) => reject(new Error(event.message));
    worker.postMessage(order);
  });
  const about = await ask({ ...settings, type: 'start' });
  return { about, classify: ({ ids }) => ask({ type: 'classify', ids }), close: () => worker.terminate() };
}

/** @type {Peer[]} */
let peers = [];

/** @param {number} ms */
const rest = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * In what order the peers take one text. Who has just run leaves caches and cores to the next, so within a text each
 * follows every other equally often (E. J. Williams, Experimental designs balanced for the estimation of residual
 * effects of treatments, 1949).
 * @param {number} number the text's
 * @returns {number[]} all of `0..count`
 */
function turns(number, count = peers.length) {
  // 0, 1, last, 2, last but one, … has each distance between neighbours once.
  const zigzag = Array.from({ length: count }, (_, turn) => (turn % 2 ? (turn + 1) / 2 : count - turn / 2));
  const order = zigzag.map((index) => (index + number) % count);
  // The distances of an odd number of peers are only half of all: the others are those backwards.
  return count % 2 && number % 2 ? order.reverse() : order;
}

const bench = {
  isolated: crossOriginIsolated,

  /** @param {any[]} settings @returns {Promise<any[]>} what each peer says about itself, or why it could not be loaded */
  async load(settings) {
    peers.forEach((peer) => peer.close());
    peers = [];
    const found = [];
    for (const one of settings) {
      try {
        const peer = await (one.kind === 'ours' ? ours : ort)(one);
        peers.push(peer);
        found.push(peer.about);
      } catch (error) {
        found.push({ error: String(error) });
      }
    }
    return found;
  },

  /**
   * Every peer gets every text.
   * @param {{texts: Text[], untimed: number, pause: number}} task
   * @returns {Promise<{ms: number[][], inner: number[][], logits: number[][][]}>} by peer and text, the untimed left out
   */
  async takeTurns({ texts, untimed, pause }) {
    const ms = peers.map(() => /** @type {number[]} */ ([]));
    const inner = peers.map(() => /** @type {number[]} */ ([]));
    const logits = peers.map(() => /** @type {number[][]} */ ([]));
    for (const [number, text] of texts.entries()) {
      for (const index of turns(number)) {
        // Threads that still wait for more to do must not take time from the next peer.
        await rest(pause);
        const started = performance.now();
        const answer = await peers[index].classify(text);
        const took = performance.now() - started;
        if (answer.tokens !== text.ids.length) throw new Error(`${answer.tokens} tokens instead of ${text.ids.length}`);
        if (number < untimed) continue;
        ms[index].push(took);
        inner[index].push(answer.inner);
        logits[index].push(answer.logits);
      }
    }
    return { ms, inner, logits };
  },

  /** Logits of one of our builds, of any texts. @param {{settings: any, texts: string[]}} task */
  async logits({ settings, texts }) {
    const classifier = await loadClassifier('/site/model/', settings);
    const predictions = await classifier.classifyMany(texts);
    classifier.close();
    return { build: classifier.build, logits: predictions.map(({ logits }) => logits) };
  },
};

/** @type {any} */ (window).bench = bench;
