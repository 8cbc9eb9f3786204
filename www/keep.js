// Owns the page's side of the service worker, which keeps the site's files and isolates the page from other origins. It
// must not know what the files are: sw.js does.

/** A page that is opened for the first time would rather start without it than wait any longer. */
const MOST_WAIT_MS = 2000;

/**
 * Starts the service worker, and waits until it looks after this page's requests, so that what is downloaded now is
 * kept. Without one (over plain http, or where it is switched off) the page works as well.
 * @returns {Promise<void>}
 */
export async function keeperIsThere() {
  if (!('serviceWorker' in navigator)) return;
  const { serviceWorker } = navigator;
  try {
    const late = new Promise((resolve) => { setTimeout(resolve, MOST_WAIT_MS); });
    const controlled = new Promise((resolve) => { serviceWorker.addEventListener('controllerchange', resolve, { once: true }); });
    await serviceWorker.register(new URL('./sw.js', import.meta.url));
    if (!serviceWorker.controller) await Promise.race([controlled, late]);
  } catch {
    // It is a convenience: whatever is wrong with it, the page itself will say what is wrong with the site.
  }
}

/**
 * Everything is there: keeps what the next visit needs, and nothing of earlier versions.
 * @param {import('./engine.js').BuildName} build the one that is running
 */
export function keepFiles(build) {
  // The next visit is isolated, and may run threads.
  const next = !crossOriginIsolated && build === 'relaxed' && navigator.hardwareConcurrency > 2 ? ['relaxed-threads'] : [];
  tell({ keep: [build, ...next], page: location.href });
}

/** Something is wrong: nothing that was kept is trusted any more. */
export function forgetFiles() {
  tell({ forget: true });
}

/** @param {object} message */
function tell(message) {
  navigator.serviceWorker?.controller?.postMessage(message);
}
