/** Applies the filters of the state to the columns: one bit per condition, recomputed only where it changed. */

import { batch, computed, effect, signal } from "@preact/signals";
import { byName, captionColumn, categoriesOf, column, IMAGE_GROUP, manifest, nearest, numbers, searchColumn, strings } from "./data";
import {
  BINS, binned, clearBit, type Codes, failCodes, failPolygon, failRange, histogram, search, shownRows, sortedRows,
} from "./engine";
import { codesOfMarks, marksChanged } from "./marks";
import { byMeaning } from "./meaning";
import { group, isNumeric, lasso, meaning, picks, query, ranges, same, sort } from "./state";

export let failing = new Uint32Array(0);
/** Counts the changes of `failing`. */
export const filtered = signal(0);

const active = new Map<string, { stamp: string; bit: number }>();

/** Time a part of the work, where a benchmark and a browser's profile find it. */
export function timed<T>(name: string, work: () => T): T {
  const start = performance.now(), result = work();
  performance.measure(`clipmem ${name}`, { start, end: performance.now() });
  return result;
}

function freeBit(): number {
  const taken = new Set(Array.from(active.values(), (one) => one.bit));
  for (let bit = 0; bit < 32; bit++) if (!taken.has(bit)) return bit;
  throw new Error("more than 32 filters");
}

/** Apply one condition if it is new or changed. A stamp of null takes it away. */
function apply(key: string, stamp: string | null, work: (bit: number) => void): boolean {
  const before = active.get(key);
  if ((before?.stamp ?? null) === stamp) return false;
  if (stamp === null) {
    clearBit(failing, before!.bit);
    active.delete(key);
    return true;
  }
  const bit = before?.bit ?? freeBit();
  active.set(key, { stamp, bit });
  work(bit);
  return true;
}

/** Return the values of a column to group or count by, and their names. */
export function categories(name: string): { codes: Codes | null; names: string[] } {
  if (name === "mark") return { codes: marksChanged.value >= 0 ? codesOfMarks() : null, names: manifest.marks };
  const info = byName.get(name);
  return info ? { codes: column(name)?.codes ?? null, names: categoriesOf(info) } : { codes: null, names: [] };
}

function update(): void {
  let changed = false;
  const wanted = new Set<string>();
  const want = (key: string, stamp: string, work: (bit: number) => void) => {
    wanted.add(key);
    changed = apply(key, stamp, work) || changed;
  };
  for (const [name, [low, high]] of Object.entries(ranges.value)) {
    const values = numbers(name);
    if (values) want(`in ${name}`, `${low} ${high}`, (bit) => failRange(values, low, high, failing, bit));
  }
  for (const [name, chosen] of Object.entries(picks.value)) {
    const { codes, names } = categories(name);
    if (!codes) continue;
    const allowed = new Uint8Array(65536);
    for (const value of chosen) if (names.includes(value)) allowed[names.indexOf(value)] = 1;
    const version = name === "mark" ? marksChanged.value : 0;
    want(`is ${name}`, `${chosen.join("\0")} ${version}`, (bit) => failCodes(codes, allowed, failing, bit));
  }
  const searched = query.value.trim() && meaning.value === null ? searchColumn() : null, texts = strings(searched), codes = column(searched)?.codes;
  if (texts && codes) {
    want("q", query.value.trim(), (bit) =>
      timed("search", () => failCodes(codes, search(texts, query.value), failing, bit)));
  }
  if (same.value) {
    const { by, row } = same.value;
    const values = by === "image" ? numbers(IMAGE_GROUP) : by === "neighbors" ? nearest(row) : (column(captionColumn)?.codes as Int32Array | null);
    if (values) want("same", `${by} ${row}`, (bit) => failRange(values as Int32Array, values[row], values[row], failing, bit));
  }
  if (lasso.value) {
    const { x, y, points } = lasso.value, first = numbers(x), second = numbers(y);
    if (first && second) want("lasso", points.join(" "), (bit) => failPolygon(first, second, points, failing, bit));
  }
  for (const key of [...active.keys()]) if (!wanted.has(key)) changed = apply(key, null, () => {}) || changed;
  if (changed) filtered.value = filtered.peek() + 1;
}

export function startFilters(): void {
  failing = new Uint32Array(manifest.rows);
  effect(() => timed("filter", () => batch(update)));
}

const orders = new Map<string, Uint32Array>(); // the last few, the newest last

/** Return all rows by a column, and keep the last few orders. */
export function orderBy(name: string, descending: boolean): Uint32Array | null {
  const key = `${name} ${descending}`, kept = orders.get(key);
  const values = isNumeric(name) ? numbers(name) : new Int32Array(manifest.rows); // nothing to sort by: by row
  if (kept || !values) return kept ?? null;
  if (orders.size >= 3) orders.delete(orders.keys().next().value!);
  const order = timed("sort", () => sortedRows(values, descending));
  orders.set(key, order);
  return order;
}

/** The rows shown, in order; null until the column that sorts is loaded. */
export const shown = computed<Uint32Array | null>(() => {
  void filtered.value;
  const order = byMeaning.value ?? orderBy(sort.value.column, sort.value.descending);
  return order && timed("order", () => shownRows(order, failing));
});

const bins = new Map<string, Uint8Array>();

/** Return the bin of each row of a column, once it is loaded. */
function binsOf(name: string): Uint8Array | null {
  const values = numbers(name), info = byName.get(name);
  if (!bins.has(name) && values && info) bins.set(name, binned(values, info.min ?? 0, info.max ?? 1));
  return bins.get(name) ?? null;
}

const bitOf = (key: string) => (active.has(key) ? 1 << active.get(key)!.bit : 0);

export interface Counts {
  counts: Uint32Array;
  size: number;
  groups: string[]; // empty: not grouped
}

/** Return the codes and names to split by; all beyond the first five values, and missing ones, are one group. */
export function split(name: string | null): { codes: Codes | null; names: string[] } {
  if (!name) return { codes: null, names: [] };
  const { codes, names } = categories(name);
  return { codes, names: [...names.slice(0, 5), name === "mark" ? "unmarked" : "other"] };
}

/** Count the rows by bin and by the group that is chosen, under all conditions but the column's own. */
export function countsOf(name: string, kind: "range" | "pick"): Counts | null {
  void filtered.value;
  if (kind === "range") {
    const rows = binsOf(name), groups = split(group.value);
    return rows && counted(rows, BINS, `in ${name}`, groups.codes, groups.codes ? groups.names : []);
  }
  const { codes, names } = categories(name);
  return codes && counted(codes, names.length, `is ${name}`, null, []);
}

function counted(rows: Codes, size: number, key: string, codes: Codes | null, groups: string[]): Counts {
  const count = Math.max(1, groups.length);
  return { counts: timed("count", () => histogram(rows, size, failing, bitOf(key), codes, count)), size, groups };
}

const totals = new Map<string, Uint32Array>();

/** Count all rows by bin, whatever is filtered. */
export function totalsOf(name: string): Uint32Array | null {
  const rows = binsOf(name);
  if (!totals.has(name) && rows) totals.set(name, histogram(rows, BINS, failing, -1, null, 1));
  return totals.get(name) ?? null;
}
