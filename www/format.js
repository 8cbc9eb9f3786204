// Owns how numbers are written for people. The page is in English, so are its numbers, whatever the browser's language.

const percentFormat = new Intl.NumberFormat('en', { style: 'percent', minimumFractionDigits: 1, maximumFractionDigits: 1 });
const integerFormat = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const dateFormat = new Intl.DateTimeFormat('en', { dateStyle: 'long', timeZone: 'UTC' });

/** A probability is never shown as a certainty by rounding. @param {number} share between 0 and 1 */
export function percent(share) {
  if (share < 1 && share > 0.9995) return '>99.9%';
  if (share > 0 && share < 0.0005) return '<0.1%';
  return percentFormat.format(share);
}

/** @param {number} value */
export function integer(value) {
  return integerFormat.format(value);
}

/** @param {number} count @param {string} one @param {string} [many] */
export function counted(count, one, many = `${one}s`) {
  return `${integer(count)} ${count === 1 ? one : many}`;
}

/** @param {number} bytes */
export function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/** @param {number} ms */
export function duration(ms) {
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${integer(ms)} ms`;
  return `${(ms / 1000).toFixed(1)} s`;
}

/** @param {string} text an ISO date, or anything else, which is shown as it is */
export function date(text) {
  const parsed = new Date(text);
  return Number.isNaN(parsed.valueOf()) ? text : dateFormat.format(parsed);
}

/** @param {string[]} names */
export function listed(names) {
  return names.length < 2 ? names.join() : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
}
