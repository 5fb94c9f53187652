/**
 * Filters, orders, counts and searches the columns of a view, as plain typed arrays: no document, no state.
 *
 * Each condition owns one bit of a word per row, set where the row fails it. A row is shown where its word is 0, and a
 * histogram ignores its own condition by ignoring its bit. Missing numbers (NaN, or the smallest integer) fail every
 * range and sort last. Text is UTF-8, one string per code, in one array of bytes.
 */

export type Numbers = Float32Array | Int32Array;
export type Codes = Uint8Array | Uint16Array | Int32Array;

export const MISSING = -2147483648;
export const BINS = 48;
const NO_BIN = 255;

const isMissing = (value: number, whole: boolean) => (whole ? value === MISSING : value !== value);

/** Set a bit where a number is outside [low, high], both rounded as the numbers are, or missing. */
export function failRange(values: Numbers, low: number, high: number, failing: Uint32Array, bit: number): void {
  const set = 1 << bit, keep = ~set, whole = values instanceof Int32Array;
  const least = whole ? Math.max(low, MISSING + 1) : Math.fround(low), most = whole ? high : Math.fround(high);
  for (let row = 0; row < values.length; row++) {
    const value = values[row];
    failing[row] = value >= least && value <= most ? failing[row] & keep : failing[row] | set;
  }
}

/** Set a bit where the code of a row is not allowed. */
export function failCodes(codes: Codes, allowed: Uint8Array, failing: Uint32Array, bit: number): void {
  const set = 1 << bit, keep = ~set;
  for (let row = 0; row < codes.length; row++) {
    failing[row] = allowed[codes[row]] ? failing[row] & keep : failing[row] | set;
  }
}

/** Set a bit where a point is outside a polygon (x0, y0, x1, y1, ...), by the even-odd rule. */
export function failPolygon(x: Numbers, y: Numbers, polygon: number[], failing: Uint32Array, bit: number): void {
  const set = 1 << bit, keep = ~set, corners = polygon.length / 2;
  for (let row = 0; row < x.length; row++) {
    let inside = false;
    for (let k = 0, last = corners - 1; k < corners; last = k++) {
      const y0 = polygon[2 * k + 1], y1 = polygon[2 * last + 1];
      if (y0 > y[row] !== y1 > y[row]) {
        const x0 = polygon[2 * k], x1 = polygon[2 * last];
        if (x[row] < ((x1 - x0) * (y[row] - y0)) / (y1 - y0) + x0) inside = !inside;
      }
    }
    failing[row] = inside ? failing[row] & keep : failing[row] | set;
  }
}

/** Clear a bit of every row. */
export function clearBit(failing: Uint32Array, bit: number): void {
  const keep = ~(1 << bit);
  for (let row = 0; row < failing.length; row++) failing[row] &= keep;
}

/** Return all rows by value, equal values by row, missing ones last: a radix sort of the bits, 11 at a time. */
export function sortedRows(values: Numbers, descending: boolean): Uint32Array {
  const whole = values instanceof Int32Array, total = values.length;
  const bits = new Int32Array(values.buffer, values.byteOffset, total);
  let rows = new Uint32Array(total), keys = new Uint32Array(total);
  const flip = descending ? -1 : 0, missing: number[] = [];
  let count = 0;
  for (let row = 0; row < total; row++) {
    if (isMissing(values[row], whole)) {
      missing.push(row);
      continue;
    }
    const word = values[row] === 0 ? 0 : bits[row];
    keys[count] = (whole ? word ^ MISSING : word ^ ((word >> 31) | MISSING)) ^ flip;
    rows[count++] = row;
  }
  let otherRows = new Uint32Array(total), otherKeys = new Uint32Array(total);
  for (let shift = 0; shift < 32; shift += 11) {
    const starts = new Uint32Array(2049);
    for (let k = 0; k < count; k++) starts[((keys[k] >>> shift) & 2047) + 1]++;
    if (starts.includes(count)) continue;
    for (let k = 0; k < 2048; k++) starts[k + 1] += starts[k];
    for (let k = 0; k < count; k++) {
      const place = starts[(keys[k] >>> shift) & 2047]++;
      otherKeys[place] = keys[k];
      otherRows[place] = rows[k];
    }
    [rows, otherRows, keys, otherKeys] = [otherRows, rows, otherKeys, keys];
  }
  for (const row of missing) rows[count++] = row;
  return rows;
}

/** Return the rows of an order that fail no condition. */
export function shownRows(order: Uint32Array, failing: Uint32Array): Uint32Array {
  const shown = new Uint32Array(order.length);
  let count = 0;
  for (let k = 0; k < order.length; k++) if (failing[order[k]] === 0) shown[count++] = order[k];
  return shown.subarray(0, count);
}

/** Return the bin of each row between min and max, the last bin closed. */
export function binned(values: Numbers, min: number, max: number): Uint8Array {
  const bins = new Uint8Array(values.length), scale = max > min ? BINS / (max - min) : 0;
  const whole = values instanceof Int32Array;
  for (let row = 0; row < values.length; row++) {
    const value = values[row];
    if (isMissing(value, whole)) bins[row] = NO_BIN;
    else bins[row] = Math.max(0, Math.min(BINS - 1, Math.floor((value - min) * scale)));
  }
  return bins;
}

/**
 * Count the shown rows by group and bin, `counts[group * size + bin]`; bits in `ignored` do not hide a row. Codes beyond
 * the last group, missing ones too, count as the last.
 */
export function histogram(
  bins: Codes, size: number, failing: Uint32Array, ignored: number, groups: Codes | null, groupCount: number,
): Uint32Array {
  const counts = new Uint32Array(size * groupCount), keep = ~ignored;
  for (let row = 0; row < bins.length; row++) {
    if (failing[row] & keep) continue;
    const bin = bins[row], group = groups ? Math.min(groups[row], groupCount - 1) : 0;
    if (bin < size) counts[group * size + bin]++;
  }
  return counts;
}

export type Box = [left: number, right: number, bottom: number, top: number];

/** Count points by cell: one layer of hidden rows, then one of shown rows per group; the last layer has all others. */
export function density(
  x: Numbers, y: Numbers, failing: Uint32Array, box: Box, width: number, height: number,
  groups: Codes | null, groupCount: number,
): Uint32Array {
  const cells = width * height, counts = new Uint32Array(cells * (groupCount + 1));
  const [left, right, bottom, top] = box, across = width / (right - left), up = height / (top - bottom);
  for (let row = 0; row < x.length; row++) {
    const column = (x[row] - left) * across, line = (top - y[row]) * up;
    if (!(column >= 0 && column < width && line >= 0 && line < height)) continue;
    const layer = failing[row] ? 0 : groups ? Math.min(groups[row], groupCount - 1) + 1 : 1;
    counts[layer * cells + (line | 0) * width + (column | 0)]++;
  }
  return counts;
}

/** Return the shown row nearest to a point, within an ellipse of the given radii, or -1. */
export function nearestRow(
  x: Numbers, y: Numbers, failing: Uint32Array, px: number, py: number, rx: number, ry: number,
): number {
  let best = -1, least = 1;
  for (let row = 0; row < x.length; row++) {
    if (failing[row]) continue;
    const dx = (x[row] - px) / rx, dy = (y[row] - py) / ry, distance = dx * dx + dy * dy;
    if (distance < least) (least = distance), (best = row);
  }
  return best;
}

/** Return the mean rank of each shown row, from 1; 0 where the row is hidden or missing in either column. */
export function meanRanks(values: Numbers, other: Numbers, failing: Uint32Array): Float32Array {
  const order = sortedRows(values, false), ranks = new Float32Array(values.length);
  const whole = values instanceof Int32Array, otherWhole = other instanceof Int32Array;
  let count = 0;
  for (let k = 0; k < order.length; k++) {
    const row = order[k];
    if (!failing[row] && !isMissing(values[row], whole) && !isMissing(other[row], otherWhole)) order[count++] = row;
  }
  for (let first = 0, end = 0; first < count; first = end) {
    while (end < count && values[order[end]] === values[order[first]]) end++;
    for (let k = first; k < end; k++) ranks[order[k]] = (first + 1 + end) / 2;
  }
  return ranks;
}

export interface Disagreement {
  count: number;
  correlation: number; // Spearman's
  above: Uint32Array; // rows with the largest rank in a minus rank in b
  below: Uint32Array;
}

/** Return how two columns order the shown rows: rank correlation, and the rows whose ranks differ most. */
export function disagreement(a: Numbers, b: Numbers, failing: Uint32Array, limit: number): Disagreement {
  const first = meanRanks(a, b, failing), second = meanRanks(b, a, failing);
  const change = new Float32Array(first.length);
  let count = 0, products = 0, squaresA = 0, squaresB = 0;
  for (let row = 0; row < first.length; row++) if (first[row]) count++;
  const middle = (count + 1) / 2;
  for (let row = 0; row < first.length; row++) {
    if (!first[row]) {
      change[row] = NaN;
      continue;
    }
    const u = first[row] - middle, v = second[row] - middle;
    (products += u * v), (squaresA += u * u), (squaresB += v * v);
    change[row] = first[row] - second[row];
  }
  const order = sortedRows(change, false), kept = Math.min(limit, count);
  return {
    count,
    correlation: products / Math.sqrt(squaresA * squaresB),
    above: order.slice(count - kept, count).reverse().filter((row) => change[row] > 0),
    below: order.slice(0, kept).filter((row) => change[row] < 0),
  };
}

/** The unique texts of a column, joined by NUL. */
export class Strings {
  readonly starts: Uint32Array; // where each begins; one more at the end
  readonly count: number;

  constructor(readonly bytes: Uint8Array) {
    let starts = new Uint32Array(1024), count = 1;
    for (let end = bytes.indexOf(0); end >= 0; end = bytes.indexOf(0, end + 1)) {
      if (count + 1 >= starts.length) {
        const larger = new Uint32Array(starts.length * 2);
        larger.set(starts);
        starts = larger;
      }
      starts[count++] = end + 1;
    }
    starts[count] = bytes.length + 1;
    this.starts = starts.slice(0, count + 1);
    this.count = count;
  }

  /** Return a text, cut after some bytes. */
  text(code: number, limit = Infinity): string {
    if (code < 0 || code >= this.count) return "";
    const start = this.starts[code], end = this.starts[code + 1] - 1;
    const cut = Math.min(end, start + limit);
    const text = new TextDecoder().decode(this.bytes.subarray(start, cut));
    return cut < end ? text.replace(/\uFFFD$/, "") + "…" : text;
  }
}

const FOLD = Uint8Array.from({ length: 256 }, (_, code) => (code >= 65 && code <= 90 ? code + 32 : code));

/** Return the words of a query: quoted ones may hold spaces, those after a minus must be absent; -w asks for whole words. */
export function parseQuery(query: string): { present: string[]; absent: string[]; whole: boolean } {
  const present: string[] = [], absent: string[] = [];
  let whole = false;
  for (const [, minus, quoted, plain] of query.replace(/[\0\x1f]/g, "").matchAll(/(-?)(?:"([^"]*)"?|(\S+))/g)) {
    const word = quoted ?? plain;
    if (minus && plain === "w") whole = true;
    else if (word && !(word === "-" && !minus)) (minus ? absent : present).push(word);
  }
  return { present, absent, whole };
}

/** Return the forms of a word to look for: case is ignored for A to Z; other letters match as typed, lower, upper, or capital. */
function formsOf(word: string): Uint8Array[] {
  const lower = word.toLowerCase(), capital = lower.slice(0, 1).toUpperCase() + lower.slice(1);
  const forms = /^[\0-\x7f]*$/.test(word) ? [lower] : [...new Set([word, lower, word.toUpperCase(), capital])];
  return forms.map((form) => new TextEncoder().encode(form).map((byte) => FOLD[byte]));
}

/** Return the product of the int8 vector of each row, times its scale, with a query; NaN where the scale is 0. */
export function similarities(codes: Int8Array, scales: Float32Array, query: Float32Array): Float32Array {
  const width = query.length, products = new Float32Array(scales.length);
  for (let row = 0, at = 0; row < scales.length; row++) {
    let sum = 0;
    for (let k = 0; k < width; k++) sum += codes[at++] * query[k];
    products[row] = scales[row] ? sum * scales[row] : NaN;
  }
  return products;
}

const LETTER = "[\\p{L}\\p{M}\\p{N}_]", letter = new RegExp(LETTER, "u");
const LETTERS = Uint8Array.from({ length: 128 }, (_, code) => Number(letter.test(String.fromCharCode(code))));

/** Return the words of a text in lower case, as an export stores them. */
export const tokens = (text: string): string[] => text.toLowerCase().match(new RegExp(`${LETTER}+`, "gu")) ?? [];

/** Whether a letter or a digit has a byte at some place. */
function inWord(bytes: Uint8Array, at: number): boolean {
  if (!(bytes[at] >= 128)) return LETTERS[bytes[at]] === 1;
  while ((bytes[at] & 0xc0) === 0x80) at--;
  return letter.test(String.fromCodePoint(new TextDecoder().decode(bytes.subarray(at, at + 4)).codePointAt(0) ?? 0));
}

/** Return what finds the words of a query in a text, to highlight them; null without words. */
export function patternOf(query: string): RegExp | null {
  const { present, whole } = parseQuery(query);
  const words = present.map((word) => word.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&")).sort((one, other) => other.length - one.length);
  if (!words.length) return null;
  return new RegExp(whole ? `(?<!${LETTER})(?:${words.join("|")})(?!${LETTER})` : words.join("|"), "giu");
}

/** Mark the texts of some codes that hold a word, all at once, by Boyer, Moore and Horspool. */
function mark({ bytes, starts }: Strings, needle: Uint8Array, whole: boolean, hits: Uint8Array, code: number, endCode: number): void {
  const size = needle.length, final = needle[size - 1], skip = new Int32Array(256).fill(size);
  for (let k = 0; k < size - 1; k++) {
    skip[needle[k]] = size - 1 - k;
    if (needle[k] >= 97 && needle[k] <= 122) skip[needle[k] - 32] = size - 1 - k;
  }
  const ahead = skip[final], step = skip.map((by, byte) => (FOLD[byte] === final ? 0 : by));
  const end = starts[endCode] - 1;
  for (let at = starts[code] + size - 1; at < end; ) {
    const by = step[bytes[at]];
    if (by) {
      at += by;
      continue;
    }
    let k = size - 2;
    while (k >= 0 && FOLD[bytes[at + 1 - size + k]] === needle[k]) k--;
    if (k < 0 && !(whole && (inWord(bytes, at - size) || inWord(bytes, at + 1)))) {
      while (starts[code + 1] <= at) code++;
      hits[code] = 1;
      at = starts[code + 1] + size - 1;
    } else at += ahead;
  }
}

/** Return 1 for each text that has all words of a query and none of its excluded ones. */
export function search(strings: Strings, query: string): Uint8Array {
  const { present, absent, whole } = parseQuery(query), found = new Uint8Array(strings.count).fill(1);
  let left = strings.count;
  for (const [words, wanted] of [[present, 1], [absent, 0]] as const) {
    for (const word of words) {
      const hits = new Uint8Array(strings.count);
      for (const form of formsOf(word)) {
        if (left > strings.count / 32) mark(strings, form, whole, hits, 0, strings.count);
        else for (let code = 0; code < found.length; code++) if (found[code]) mark(strings, form, whole, hits, code, code + 1);
      }
      left = 0;
      for (let code = 0; code < found.length; code++) left += found[code] &= hits[code] ^ (1 - wanted);
    }
  }
  return found;
}

/** Return the distinct words of a text, in lower case, but for common ones. */
export const wordsOf = (text: string, common: Set<string>) =>
  new Set((text.toLowerCase().match(/\p{L}+/gu) ?? []).filter((word) => word.length > 1 && !common.has(word)));

/** Words in more than a fifth of some captions: they tell nothing of an image. */
export function commonWords(captions: string[]): Set<string> {
  const counts = new Map<string, number>();
  for (const text of captions) for (const word of wordsOf(text, new Set())) counts.set(word, (counts.get(word) ?? 0) + 1);
  return new Set([...counts].filter(([, count]) => count > Math.max(2, captions.length / 5)).map(([word]) => word));
}

/** Say how many of the nearest images have a word that the caption lacks, and which words the caption has alone. */
export function evidence(caption: string, nearest: string[], common: Set<string>): string {
  const mine = wordsOf(caption, common), others = nearest.map((text) => wordsOf(text, common)), counts = new Map<string, number>();
  for (const words of others) for (const word of words) if (!mine.has(word)) counts.set(word, (counts.get(word) ?? 0) + 1);
  const longer = (one: string, other: string) => other.length - one.length || (one < other ? -1 : 1);
  // the most frequent word; of several the longest, which says most
  const [word, count] = [...counts].sort(([one, first], [other, second]) => second - first || longer(one, other))[0] ?? ["", 0];
  const alone = [...mine].filter((one) => others.every((words) => !words.has(one))).sort(longer).slice(0, 2);
  const absent = alone.map((one) => `“${one}”`).join(" or ");
  if (count > 1) return `${count} of the ${nearest.length} nearest images have “${word}” in their captions${absent && `; none has ${absent}`}.`;
  return absent && nearest.length ? `None of the ${nearest.length} nearest images has ${absent} in its captions.` : "";
}
