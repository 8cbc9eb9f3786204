// Owns how a worker gives up the network. A bucket sends no policy header for a worker's script, so each takes its own
// network functions away before it sees any text.

/** Everything in a worker that can send something somewhere. */
const NETWORK = ['fetch', 'XMLHttpRequest', 'WebSocket', 'WebSocketStream', 'WebTransport', 'EventSource', 'BroadcastChannel', 'RTCPeerConnection', 'importScripts', 'Worker', 'SharedWorker', 'caches', 'indexedDB'];

/** For good: there is no way back. */
export function removeNetwork() {
  for (const name of NETWORK) {
    for (let scope = self; scope; scope = Object.getPrototypeOf(scope)) delete (/** @type {any} */ (scope)[name]);
    Object.defineProperty(self, name, { value: undefined, writable: false, configurable: false });
  }
}
