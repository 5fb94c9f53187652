/** What is looked at, all of it in the address: a link shows another person the same view. */

import { batch, computed, effect, type Signal, signal } from "@preact/signals";
import { byName, IMAGE_GROUP, manifest } from "./data";
import { labelOf, visible } from "./text";

export type View = "review" | "gallery" | "map" | "scores" | "compare";
export interface Sort {
  column: string;
  descending: boolean;
}
export interface Same {
  by: "caption" | "image" | "neighbors";
  row: number;
}
export interface Lasso {
  x: string;
  y: string;
  points: number[];
}

export const view = signal<View>("gallery");
export const query = signal("");
/** What images should show, of a query that begins with a tilde; null: the query is for captions. */
export const meaning = computed(() => (/^\s*~/.test(query.value) ? query.value.trim().slice(1).trim() : null));
export const sort = signal<Sort>({ column: "", descending: true });
export const ranges = signal<Record<string, [number, number]>>({});
export const picks = signal<Record<string, string[]>>({}); // "mark" is one of the columns here
export const same = signal<Same | null>(null);
export const lasso = signal<Lasso | null>(null);
export const group = signal<string | null>(null);
/** Whether histograms are as high as the logarithms of counts. */
export const logarithmic = signal(false);
export const mapIndex = signal(0);
export const axes = signal<[string, string]>(["", ""]);
export const pair = signal<number | null>(null);
export const opened = signal(false);
/** Whether the image of the open pair fills the window. */
export const enlarged = signal(false);
export const help = signal(false);
/** Set where the neighbors of the pair are to be scrolled to, once they are drawn. */
export const toNeighbors = signal(false);
const visits = signal(0);

export const isNumeric = (name: string) => ["f32", "i32"].includes(byName.get(name)?.type ?? "");

/** Columns that can be sorted by and drawn, in the order of the manifest. */
export const numeric = () => manifest.columns.filter((info) => isNumeric(info.name) && info.group !== "map" && info.name !== IMAGE_GROUP);

export const short = (value: number) => String(Number(value.toPrecision(5)));
const without = <T>(record: Record<string, T>, name: string) =>
  Object.fromEntries(Object.entries(record).filter(([key]) => key !== name)) as Record<string, T>;

export function setRange(name: string, range: [number, number] | null): void {
  ranges.value = range ? { ...ranges.value, [name]: range } : without(ranges.value, name);
}

/** Toggle one value of a category filter; no value left means no filter. */
export function togglePick(name: string, value: string): void {
  const chosen = picks.value[name] ?? [];
  const next = chosen.includes(value) ? chosen.filter((one) => one !== value) : [...chosen, value];
  picks.value = next.length ? { ...picks.value, [name]: next } : without(picks.value, name);
}

export function clearPicks(name: string): void {
  picks.value = without(picks.value, name);
}

/** Write both ends of a range, or the one that it has. */
function rangeText([low, high]: [number, number]): string {
  if (low === -Infinity) return `at most ${short(high)}`;
  return high === Infinity ? `at least ${short(low)}` : `${short(low)} to ${short(high)}`;
}

/** All conditions in force as a reader says them, and how to take each away. */
export function filters(): { text: string; clear: () => void }[] {
  const all: ReturnType<typeof filters> = [];
  const add = (text: string, clear: () => void) => void all.push({ text, clear });
  if (meaning.value) add(`by meaning: ${visible(meaning.value)}`, () => (query.value = ""));
  else if (query.value.trim() && meaning.value === null) add(`search: ${visible(query.value.trim())}`, () => (query.value = ""));
  for (const [name, range] of Object.entries(ranges.value)) add(name === IMAGE_GROUP ? "same image as another pair" : `${labelOf(name)} ${rangeText(range)}`, () => setRange(name, null));
  for (const [name, values] of Object.entries(picks.value)) add(`${labelOf(name)}: ${values.map(visible).join(", ")}`, () => clearPicks(name));
  if (same.value) add(same.value.by === "neighbors" ? "nearest neighbors of one pair" : `same ${same.value.by} as one pair`, () => (same.value = null));
  if (lasso.value) add(`lasso: ${labelOf(lasso.value.y)} against ${labelOf(lasso.value.x)}`, () => (lasso.value = null));
  return all;
}

export function clearFilters(): void {
  batch(() => {
    query.value = "";
    ranges.value = {};
    picks.value = {};
    same.value = null;
    lasso.value = null;
  });
}

/** Sort by another column, in the direction in which it is read, instead of by similarity to a query. */
export function sortBy(name: string): void {
  batch(() => {
    if (meaning.value !== null) query.value = "";
    sort.value = { column: name, descending: name !== manifest.sort.column || manifest.sort.descending }; // as the page opens, or high first
  });
}

/** Reverse the order; that by similarity to a query stays. */
export function reverse(): void {
  if (meaning.value === null) sort.value = { ...sort.value, descending: !sort.value.descending };
}

/** Show all pairs with the caption or the image of a row, or its nearest neighbors. */
export function showSame(by: Same["by"], row: number): void {
  batch(() => {
    clearFilters();
    same.value = { by, row };
    if (view.value !== "gallery") view.value = "gallery";
  });
}

export function openPair(row: number | null): void {
  batch(() => {
    pair.value = row;
    opened.value = row !== null;
  });
}

/** The view that the page opens with: data that were curated without a run are to be reviewed. */
const firstView = (): View => (manifest.review && manifest.source !== "run" ? "review" : "gallery");

/** Open a pair from another one: the browser goes back to that one. */
export function visitPair(row: number): void {
  batch(() => (visits.value++, openPair(row)));
}

/** Write an order and chosen values as the address does. */
function write(words: URLSearchParams, { column, descending }: Sort, chosen: Record<string, string[]>): URLSearchParams {
  const start = manifest.sort;
  if (column !== start.column || descending !== start.descending) words.set("sort", (descending ? "-" : "") + column);
  for (const [name, values] of Object.entries(chosen)) for (const one of values) words.append(`is.${name}`, one);
  return words;
}

/** The address of the gallery in some order, with chosen values alone. */
export const addressOf = (order: Sort, chosen: Record<string, string[]>): string =>
  finished(write(new URLSearchParams(firstView() === "gallery" ? "" : "view=gallery"), order, chosen));

/** An empty address shows what the page opens with: all pairs need words where that is less. */
const finished = (words: URLSearchParams): string =>
  words.toString() || (Object.keys(manifest.picks ?? {}).length ? "view=gallery" : "");

/** The address of what is looked at, with or without the current pair. */
export function encoded(withPair = true): string {
  const words = new URLSearchParams();
  if (view.value !== firstView()) words.set("view", view.value);
  if (query.value) words.set("q", query.value);
  write(words, sort.value, picks.value);
  for (const [name, [low, high]] of Object.entries(ranges.value)) words.set(`in.${name}`, `${low}..${high}`);
  if (same.value) words.set("same", `${same.value.by}.${same.value.row}`);
  if (lasso.value) words.set("lasso", [lasso.value.x, lasso.value.y, ...lasso.value.points.map(short)].join(" "));
  if (group.value) words.set("group", group.value);
  if (logarithmic.value) words.set("counts", "log");
  if (view.value === "map" && mapIndex.value) words.set("map", String(mapIndex.value));
  if (view.value === "scores") words.set("axes", axes.value.join(" "));
  if (withPair && pair.value !== null) words.set("pair", String(pair.value));
  if (withPair && opened.value) words.set("open", "1");
  return finished(words);
}

/** Set a signal unless its value is the same, so that nothing is computed again. */
function put<T>(target: Signal<T>, value: T): void {
  if (JSON.stringify(target.value) !== JSON.stringify(value)) target.value = value;
}

/** Read the address; what it names wrongly is ignored. */
function decode(hash: string): void {
  const words = new URLSearchParams(hash.replace(/^#/, ""));
  const wanted = words.get("view") ?? firstView(), row = Number(words.get("pair") ?? NaN);
  const views = [...(manifest.review ? ["review"] : []), "gallery", "map", "scores", "compare"];
  put(view, (views.includes(wanted) ? wanted : "gallery") as View);
  put(query, words.get("q") ?? "");
  const [, minus, name] = /^(-?)(.*)$/s.exec(words.get("sort") ?? "") ?? [];
  put(sort, name && isNumeric(name) ? { column: name, descending: minus === "-" } : { ...manifest.sort });
  const bounds: Record<string, [number, number]> = {}, chosen: Record<string, string[]> = {};
  for (const [key, value] of words) {
    const column = key.slice(3);
    const [low, high] = value.split("..").map(Number);
    if (key.startsWith("in.") && isNumeric(column) && low <= high) bounds[column] = [low, high];
    if (key.startsWith("is.") && (column === "mark" || byName.has(column))) (chosen[column] ??= []).push(value);
  }
  put(ranges, bounds);
  put(picks, hash.length > 1 ? chosen : { ...manifest.picks });
  const [by, sameRow] = (words.get("same") ?? "").split(".");
  const known = (value: number) => Number.isInteger(value) && value >= 0 && value < manifest.rows;
  put(same, (by === "caption" || by === "image" || (by === "neighbors" && manifest.neighbors)) && known(Number(sameRow)) ? { by, row: Number(sameRow) } : null);
  const [x, y, ...corners] = (words.get("lasso") ?? "").split(" "), points = corners.map(Number);
  const drawn = isNumeric(x) && isNumeric(y ?? "") && points.length >= 6 && points.length % 2 === 0 && points.every(Number.isFinite);
  put(lasso, drawn ? { x, y, points } : null);
  const grouped = words.get("group");
  put(group, grouped && (grouped === "mark" || byName.get(grouped)?.type === "category" || byName.get(grouped)?.type === "bool") ? grouped : null);
  put(logarithmic, words.get("counts") === "log");
  put(mapIndex, Math.min(Math.max(0, Number(words.get("map")) || 0), Math.max(0, manifest.maps.length - 1)));
  const [first, second] = (words.get("axes") ?? "").split(" ");
  const [across, up = across] = manifest.axes;
  put(axes, [isNumeric(first) ? first : across, isNumeric(second) ? second : up]);
  put(pair, known(row) ? row : null);
  put(opened, words.get("open") === "1" && pair.value !== null);
}

/** Follow the address, and keep it: changes of view, of the visible pairs and visits of neighbors can be gone back to. */
export function keepAddress(): void {
  let written = "", place = "";
  const read = () => location.hash.slice(1) !== written && batch(() => decode(location.hash));
  read();
  if (!location.hash) batch(() => decode(""));
  addEventListener("hashchange", read);
  effect(() => {
    written = encoded();
    const next = JSON.stringify([view.value, same.value, lasso.value, visits.value]);
    if (location.hash.slice(1) === written) void (place = next);
    else {
      history[place && next !== place ? "pushState" : "replaceState"](null, "", `#${written}`);
      place = next;
    }
  });
}
