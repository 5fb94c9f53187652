/** Names the dense regions of a map, each by the word that its captions have more often than those of all pairs. */

import { type Box, density, type Numbers, wordsOf } from "./engine";

const GRID = 40, REACH = 4; // cells of the map, and how far a region reaches from its densest cell
const MOST = 12, SAMPLE = 20_000, FEWEST = 5; // regions, pairs that are read, pairs of a region
const SHARE = 0.25, LIFT = 2; // a word names a region if a quarter of its captions have it, twice as many as of all
const FUNCTION = new Set("an and at by for from in of on or the to with".split(" ")); // words that say nothing of an image

export interface Region {
  x: number;
  y: number;
  word: string;
  count: number; // pairs in the region, of those that are read
}

/** Return the densest cells of a smoothed grid, densest first; of neighbors within the reach only the densest. */
function peaks(counts: Float32Array, size: number): number[] {
  const smooth = new Float32Array(counts.length);
  for (let cell = 0; cell < counts.length; cell++) {
    if (!counts[cell]) continue;
    const column = cell % size, line = (cell - column) / size;
    for (let dy = -2; dy <= 2; dy++) {
      for (let dx = -2; dx <= 2; dx++) {
        const across = column + dx, down = line + dy;
        if (across >= 0 && across < size && down >= 0 && down < size) smooth[down * size + across] += counts[cell] / (1 + dx * dx + dy * dy);
      }
    }
  }
  const order = Array.from(smooth.keys()).filter((cell) => counts[cell] > 0).sort((first, second) => smooth[second] - smooth[first] || first - second);
  const highest: number[] = [];
  for (const cell of order) if (highest.every((peak) => distance(cell, peak, size) > REACH)) highest.push(cell);
  return highest;
}

const distance = (first: number, second: number, size: number) =>
  Math.hypot((first % size) - (second % size), Math.floor(first / size) - Math.floor(second / size));

/** Return the named regions of a map, largest first; a word names one region. */
export function regions(x: Numbers, y: Numbers, box: Box, captionOf: (row: number) => string): Region[] {
  const every = Math.max(1, Math.ceil(x.length / SAMPLE)), total = Math.ceil(x.length / every);
  const sampled = (values: Numbers) => Float32Array.from({ length: total }, (_, k) => values[k * every]);
  const [across, up] = [sampled(x), sampled(y)], [left, right, bottom, top] = box;
  const counts = density(across, up, new Uint32Array(total), box, GRID, GRID, null, 1).subarray(GRID * GRID);
  const highest = peaks(Float32Array.from(counts), GRID);
  const members = highest.map((): number[] => []), all = new Map<string, number>();
  const words = Array.from({ length: total }, (_, k) => wordsOf(captionOf(k * every), FUNCTION));
  for (let k = 0; k < total; k++) {
    for (const word of words[k]) all.set(word, (all.get(word) ?? 0) + 1);
    const column = Math.floor(((across[k] - left) / (right - left)) * GRID), line = Math.floor(((top - up[k]) / (top - bottom)) * GRID);
    if (!(column >= 0 && column < GRID && line >= 0 && line < GRID)) continue;
    const cell = line * GRID + column;
    const region = highest.findIndex((peak) => distance(cell, peak, GRID) <= REACH);
    if (region >= 0) members[region].push(k);
  }
  const named: Region[] = [], used = new Set<string>();
  for (const rows of members.filter(({ length }) => length >= FEWEST).sort((first, second) => second.length - first.length)) {
    const inside = new Map<string, number>();
    for (const k of rows) for (const word of words[k]) inside.set(word, (inside.get(word) ?? 0) + 1);
    let best = "", most = 0;
    for (const [word, number] of inside) {
      const share = number / rows.length, lift = share / (all.get(word)! / total);
      const gain = share * Math.log(lift); // what the word adds to the divergence of the region's words from all
      if (share >= SHARE && lift >= LIFT && !used.has(word) && gain > most) [best, most] = [word, gain];
    }
    if (!best || named.length === MOST) continue;
    used.add(best);
    const mean = (values: Float32Array) => rows.reduce((sum, k) => sum + values[k], 0) / rows.length;
    named.push({ x: mean(across), y: mean(up), word: best, count: rows.length });
  }
  return named;
}
