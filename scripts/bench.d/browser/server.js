// A static server that counts what it sends, sends the brotli twin of whatever gets smaller by it, and can be as slow
// as a line of so many bits per second. Pages from it are isolated (COOP and COEP), so that threads work and clocks
// are fine.

import { createHash } from 'node:crypto';
import events from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { promisify } from 'node:util';
import zlib from 'node:zlib';

const brotli = promisify(zlib.brotliCompress);

/** @type {Record<string, string>} */
const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.json': 'application/json',
  '.svg': 'image/svg+xml',
  '.txt': 'text/plain; charset=utf-8',
  '.wasm': 'application/wasm',
};
/** A twin that saves less is not worth unpacking. */
const WORTH = 0.98;
const CHUNK = 16 * 1024;

/**
 * The brotli twin of a file, made once and kept by the content's hash.
 * @param {string} file
 * @param {string} twins where twins are kept
 * @param {(name: string) => void} [onMaking]
 */
export async function twinOf(file, twins, onMaking) {
  const content = fs.readFileSync(file);
  const twin = path.join(twins, `${createHash('sha256').update(content).digest('hex')}.br`);
  if (!fs.existsSync(twin)) {
    const params = {
      [zlib.constants.BROTLI_PARAM_QUALITY]: 11,
      [zlib.constants.BROTLI_PARAM_LGWIN]: 24,
      [zlib.constants.BROTLI_PARAM_SIZE_HINT]: content.length,
    };
    onMaking?.(path.basename(file));
    fs.mkdirSync(twins, { recursive: true });
    fs.writeFileSync(`${twin}.part`, await brotli(content, { params }));
    fs.renameSync(`${twin}.part`, twin);
  }
  return { twin, bytes: content.length, compressed: fs.statSync(twin).size };
}

/** A line that all answers share: so many bytes per second, and no more than a moment's worth at once. */
class Line {
  #free = 0;
  #perMs;
  /** The bucket's depth, in ms of the line. */
  static DEPTH = 5;

  /** @param {number} megabits per second */
  constructor(megabits) {
    this.#perMs = (megabits * 1e6) / 8 / 1000;
  }

  /** Waits until so many bytes have gone. @param {number} bytes */
  async pass(bytes) {
    const now = performance.now();
    this.#free = Math.max(this.#free, now - Line.DEPTH) + bytes / this.#perMs;
    if (this.#free > now) await new Promise((resolve) => setTimeout(resolve, this.#free - now));
  }
}

/**
 * @typedef {{path: string, bytes: number, sent: number}} Sent one answer: its file's size, and the body's as sent
 */

/**
 * @param {object} options
 * @param {Record<string, string>} options.mounts folders by the path that they are under, such as `/site/`
 * @param {string} [options.twins] where brotli twins are kept; without, files are sent as they are
 */
export async function startServer({ mounts, twins }) {
  /** @type {Set<import('node:net').Socket>} */
  const sockets = new Set();
  /** @type {Sent[]} */
  let answers = [];
  /** @type {Line | undefined} */
  let line;
  let asTheyCome = false;
  let wire = 0;

  /** @param {string} pathname */
  function fileOf(pathname) {
    for (const [prefix, folder] of Object.entries(mounts)) {
      if (!pathname.startsWith(prefix)) continue;
      const file = path.join(folder, pathname.slice(prefix.length));
      const inside = !path.relative(folder, file).startsWith('..');
      if (inside && fs.statSync(file, { throwIfNoEntry: false })?.isFile()) return file;
    }
    return undefined;
  }

  const server = http.createServer(async (request, response) => {
    const pathname = decodeURIComponent(new URL(request.url ?? '/', 'http://localhost').pathname);
    const file = fileOf(pathname);
    response.setHeader('Cross-Origin-Opener-Policy', 'same-origin');
    response.setHeader('Cross-Origin-Embedder-Policy', 'require-corp');
    response.setHeader('Cross-Origin-Resource-Policy', 'same-origin');
    if (!file) {
      response.writeHead(404).end();
      answers.push({ path: pathname, bytes: 0, sent: 0 });
      return;
    }
    let body = fs.readFileSync(file);
    const bytes = body.length;
    if (twins && !asTheyCome && /\bbr\b/.test(String(request.headers['accept-encoding']))) {
      const { twin, compressed } = await twinOf(file, twins);
      if (compressed < WORTH * bytes) {
        body = fs.readFileSync(twin);
        response.setHeader('Content-Encoding', 'br');
      }
    }
    response.setHeader('Content-Type', TYPES[path.extname(file)] ?? 'application/octet-stream');
    response.setHeader('Content-Length', body.length);
    response.setHeader('Cache-Control', 'max-age=3600');
    answers.push({ path: pathname, bytes, sent: body.length });
    if (!line) {
      response.end(body);
      return;
    }
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    for (let start = 0; start < body.length && !response.destroyed; start += CHUNK) {
      const chunk = body.subarray(start, start + CHUNK);
      await line.pass(chunk.length);
      if (!response.write(chunk)) await events.once(response, 'drain', { signal: gone.signal }).catch(() => {});
    }
    response.end();
  });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => {
      sockets.delete(socket);
      wire += socket.bytesWritten;
    });
  });
  await /** @type {Promise<void>} */ (new Promise((resolve) => server.listen(0, '127.0.0.1', resolve)));
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());

  return {
    origin: `http://localhost:${port}`,

    /**
     * Starts counting anew, over a line of so many megabits per second.
     * @param {number} [megabits]
     * @param {boolean} [raw] whether files are sent as they are, without their twins
     */
    begin(megabits, raw = false) {
      asTheyCome = raw;
      for (const socket of sockets) socket.destroy();
      sockets.clear();
      answers = [];
      wire = 0;
      line = megabits ? new Line(megabits) : undefined;
    },

    /** What went over the wire since `begin`: headers are in `wire`, not in `answers`. */
    counted() {
      const open = [...sockets].reduce((sum, socket) => sum + socket.bytesWritten, 0);
      return { wire: wire + open, answers: [...answers] };
    },

    close() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}
