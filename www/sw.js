// Owns what the browser keeps of the site, so that a second visit needs no network, and the headers that a bucket cannot
// send. It must not know what the files mean, and has no part in what is typed: texts never become requests.
//
// Names with a hash never change and are taken from the cache. Everything else is asked for anew, and taken from the
// cache where there is no network.

(() => {
  const worker = /** @type {any} */ (self);
  /** @type {string} */
  const SCOPE = worker.registration.scope;
  /** Raise the number when the cache's content changes its meaning. Other sites of this origin have caches of their own. */
  const CACHE = `pagebert 1 ${SCOPE}`;

  /** What the page is made of, beside its document and the files whose names change. */
  const SHELL = [
    'bridge.js', 'download.js', 'engine.js', 'engine.json', 'errors.js', 'format.js', 'icon.svg', 'keep.js', 'model/manifest.json',
    'page.js', 'pagebert.js', 'seal.js', 'style.css', 'thread.js', 'view.js', 'worker.js',
  ].map((path) => new URL(path, SCOPE).href);
  const DOCUMENTS = ['./', 'index.html'].map((path) => new URL(path, SCOPE).href);
  const WORKERS = ['worker.js', 'thread.js'].map((path) => new URL(path, SCOPE).href);
  /** index.html has it: another program may be served at this address by now. */
  const MARK = '<meta name="generator" content="Pagebert">';

  /** Together these isolate the page, without which a browser shares no memory among threads. */
  const ISOLATION = { 'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp' };
  /** A worker has the policy of its own response: these load their modules, and reach nothing else. */
  const CLOSED = { ...ISOLATION, 'content-security-policy': "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'" };

  /** @param {string} url without its query */
  const isFixed = (url) => /-[0-9a-f]{16}\.[^/]+$/.test(url);
  /** @param {string} url without its query */
  const isShell = (url) => SHELL.includes(url) || (url.startsWith(`${SCOPE}wasm/`) && url.endsWith('.js'));

  worker.addEventListener('install', (/** @type {any} */ event) => {
    event.waitUntil(Promise.all(SHELL.map((url) => fetchAndKeep(url))).then(() => worker.skipWaiting()));
  });

  worker.addEventListener('activate', (/** @type {any} */ event) => {
    event.waitUntil((async () => {
      for (const name of await caches.keys()) {
        if (name.startsWith('pagebert ') && name.endsWith(` ${SCOPE}`) && name !== CACHE) await caches.delete(name);
      }
      await worker.clients.claim();
    })());
  });

  worker.addEventListener('fetch', (/** @type {any} */ event) => {
    const { request } = event;
    const url = bare(request.url);
    if (request.method !== 'GET' || request.headers.has('range')) return;
    if (DOCUMENTS.includes(url)) event.respondWith(answerDocument(event, url));
    else if (isShell(url)) event.respondWith(answerShell(event, url));
    else if (isFixed(url) && url.startsWith(SCOPE)) event.respondWith(answerFixed(event, url));
  });

  worker.addEventListener('message', (/** @type {any} */ event) => {
    const { keep: builds, page, forget } = event.data;
    // The browser may have no room left, or the network may go: then the next visit downloads again.
    if (builds) event.waitUntil(keep(builds, bare(page)).catch(() => {}));
    if (forget) event.waitUntil(dropFixed([]));
  });

  /** @param {any} event @param {string} url */
  async function answerFixed(event, url) {
    return await kept(url) ?? fetchAndKeep(url, event);
  }

  /** @param {any} event @param {string} url */
  async function answerShell(event, url) {
    const response = await freshOrKept(event, url);
    return WORKERS.includes(url) && response.ok ? withHeaders(response, CLOSED) : response;
  }

  /** @param {any} event @param {string} url */
  async function answerDocument(event, url) {
    const response = await freshOrKept(event, url);
    if (!response.ok) return response;
    if (!(await response.clone().text()).includes(MARK)) {
      await Promise.all([worker.registration.unregister(), caches.delete(CACHE)]);
      return response;
    }
    return withHeaders(response, ISOLATION);
  }

  /** @param {any} event @param {string} url */
  async function freshOrKept(event, url) {
    try {
      return await fetchAndKeep(url, event);
    } catch (cause) {
      const response = await kept(url);
      if (response) return response;
      throw cause;
    }
  }

  /**
   * Asks the server whether what the browser has is still right: a host may say nothing about how long it is.
   * @param {string} url
   * @param {any} [event] one that is to be answered: then keeping goes on behind the answer
   * @returns {Promise<Response>}
   */
  async function fetchAndKeep(url, event) {
    const options = /** @type {RequestInit} */ ({ cache: 'no-cache', credentials: 'same-origin' });
    const response = event ? await fetch(event.request, options) : await fetch(url, options);
    if (response.status !== 200) {
      if (event) return response;
      throw new Error(`${url}: status ${response.status}`);
    }
    const copy = response.clone();
    const put = caches.open(CACHE).then((cache) => cache.put(url, copy));
    if (event) event.waitUntil(put.catch(() => {}));
    else await put;
    return response;
  }

  /** @param {string} url @returns {Promise<Response | undefined>} */
  async function kept(url) {
    try {
      const cache = await caches.open(CACHE);
      return await cache.match(url, { ignoreVary: true });
    } catch {
      // A browser that has lost its store still has the network.
      return undefined;
    }
  }

  /** @param {string[]} builds of the engine @param {string} page */
  async function keep(builds, page) {
    const read = async (/** @type {string} */ path) => (await kept(new URL(path, SCOPE).href))?.json();
    const [engine, manifest] = await Promise.all([read('engine.json'), read('model/manifest.json')]);
    const paths = builds.map((name) => engine.builds[name]).filter(Boolean).flatMap(({ js, wasm }) => [js, wasm]);
    for (const { path } of /** @type {any[]} */ (Object.values(manifest.files))) paths.push(`model/${path}`);
    const urls = [...paths.map((path) => new URL(path, SCOPE).href), page];
    await dropFixed(urls);
    for (const url of urls) await kept(url) ?? await fetchAndKeep(url);
  }

  /** Removes files with a hash in their names. @param {string[]} wanted these stay */
  async function dropFixed(wanted) {
    const cache = await caches.open(CACHE);
    for (const { url } of await cache.keys()) {
      if (isFixed(url) && !wanted.includes(url)) await cache.delete(url);
    }
  }

  /** @param {Response} response @param {Record<string, string>} added */
  function withHeaders(response, added) {
    const headers = new Headers(response.headers);
    for (const [name, value] of Object.entries(added)) headers.set(name, value);
    return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
  }

  /** @param {string} url @returns {string} without query and fragment */
  function bare(url) {
    return url.replace(/[?#].*$/, '');
  }
})();
