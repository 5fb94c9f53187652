/** Loads the files of a view folder: by fetch from a server, by script elements from an export opened as a file. */

import { signal, type Signal } from "@preact/signals";
import { type Codes, type Numbers, Strings } from "./engine";

export interface ColumnInfo {
  name: string;
  label: string;
  about: string;
  group: "score" | "detector" | "part" | "pair" | "compare" | "map";
  type: "f32" | "i32" | "bool" | "category" | "text" | "uid";
  error?: string | null;
  floor?: boolean;
  categories?: string[] | null;
  codes?: "u8" | "u16";
  min?: number | null;
  max?: number | null;
  missing?: number;
}

export interface MapInfo {
  label: string;
  x: string;
  y: string;
  diagonal?: boolean;
}

export interface Manifest {
  format: number;
  clipmem: string;
  title: string;
  rows: number;
  source: "run" | "scores";
  hash: string;
  columns: ColumnInfo[];
  sort: { column: string; descending: boolean };
  axes: string[]; // two scores, of which none is computed from the other
  picks?: Record<string, string[]>; // the values that are chosen when the page opens
  noise_floor?: number | null;
  noise_center?: number | null;
  maps: MapInfo[];
  sides: string[];
  neighbors: boolean;
  thumbnails: boolean;
  details: boolean;
  compare: { title: string; change: string; pairs: [string, string][] } | null;
  credits: string[];
  marks: string[];
  marked?: Change[]; // an export: the marks that the run had
  marks_file?: string | null;
  writes?: boolean;
  words?: number; // an export: how many words have vectors
  no_words?: string; // or why none has
  review: { command: string | null; folder: string; marks: string } | null;
}

/** A mark that was set or taken back, as in the run's marks file. */
export interface Change {
  row: number;
  mark: string | null;
  time: string;
  note: string | null;
  caption: string | null; // for a wrong pair: its new caption
}

export interface Neighbor {
  row: number;
  similarity: number;
}
type Sides<T> = Record<string, T>;

export interface Detail {
  row: number;
  uid: string;
  captions: { text: string; trained: boolean }[];
  role: string | null;
  planted: boolean | null;
  caption_from: string | null;
  seeds: { seed: number; f: number; g: number }[];
  parts: Sides<Record<string, number>> | null;
  detectors: { name: string; label: string; score: number; rank: number | null; reason: string }[];
  credit: string | null;
  source: string;
  note?: string | null;
  why: { reasons: string[]; near: number[]; suggested: string | null } | null;
  neighbors?: Sides<Sides<Neighbor[]>>;
}

export interface Column {
  info: ColumnInfo;
  numbers: Numbers | null;
  codes: Codes | null;
  bytes: Uint8Array | null;
}

/** Column of the group of identical images that an image belongs to. */
export const IMAGE_GROUP = "image_group";
const FORMAT = 1;
const BLOCK = 256; // pairs in a file of details

const meta = (name: string) =>
  typeof document === "undefined" ? "" : (document.querySelector<HTMLMetaElement>(`meta[name="${name}"]`)?.content ?? "");
export const live = meta("clipmem") === "live";
export const token = meta("token");

export let manifest: Manifest;
export const byName = new Map<string, ColumnInfo>();
/** Name of the column of captions. */
export let captionColumn: string | null = null;
/** Name of the column that is searched: all captions of a pair, the trained ones first, if it has more. */
export const searchColumn = (): string | null => (byName.has("all_captions") ? "all_captions" : captionColumn);
/** Why something could not be loaded; the rest of the page goes on. */
export const problem = signal<{ name: string; text: string } | null>(null);

const waiting = new Map<string, (payload: unknown) => void>();
(globalThis as Record<string, unknown>).clipmemData = (name: string, payload: unknown) => waiting.get(name)?.(payload);

/** Return a piece that a page in one file holds, or null. */
function held<T>(name: string): T | null {
  const text = document.getElementById(name)?.textContent;
  return text ? JSON.parse(text) : null;
}

/** Load `data/PATH.js`, which hands its payload over under a name, unless the page holds it. */
function script<T>(path: string, name: string): Promise<T> {
  const piece = held<T>(name);
  if (piece !== null) return Promise.resolve(piece);
  return new Promise((resolve, reject) => {
    const element = document.createElement("script");
    element.src = `data/${path}.js`;
    const settle = (payload: unknown) => (waiting.delete(name), element.remove(), resolve(payload as T));
    waiting.set(name, settle);
    element.onerror = () => reject(new Error(`data/${path}.js is missing`));
    document.head.append(element);
  });
}

async function get(path: string): Promise<Response> {
  const answer = await fetch(path).catch(() => null);
  if (!answer) throw new Error("the server has stopped: start `clipmem view` again, then reload");
  if (!answer.ok) throw new Error(`${path}: the server answered ${answer.status}`);
  return answer;
}

function decoded(base64: string): ArrayBuffer {
  const native = Uint8Array as unknown as { fromBase64?: (text: string) => Uint8Array<ArrayBuffer> };
  if (native.fromBase64) return native.fromBase64(base64).buffer;
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k);
  return bytes.buffer;
}

const binary = async (name: string): Promise<ArrayBuffer> =>
  live
    ? (await get(`data/columns/${encodeURIComponent(name)}.bin`)).arrayBuffer()
    : decoded(await script<string>(`columns/${encodeURIComponent(name)}`, `columns/${name}`));

export async function loadManifest(): Promise<void> {
  manifest = live ? await (await get("data/manifest.json")).json() : await script<Manifest>("manifest", "manifest");
  if (manifest.format > FORMAT) {
    throw new Error(`this view has format ${manifest.format}; this page reads ${FORMAT}: update clipmem`);
  }
  for (const info of manifest.columns) byName.set(info.name, info);
  const texts = manifest.columns.filter((info) => info.type === "text" && info.name !== "uid");
  captionColumn = (texts.find((info) => info.name === "captions") ?? texts[0])?.name ?? null;
}

const columns = new Map<string, Signal<Column | null>>();
const texts = new Map<string, Signal<Strings | null>>();

/** Return a value that is null until it is loaded; the first call starts loading. */
function lazily<T>(kept: Map<string, Signal<T | null>>, name: string, load: () => Promise<T>): T | null {
  let found = kept.get(name);
  if (!found) {
    const box = signal<T | null>(null);
    kept.set(name, (found = box));
    const fail = (error: Error) => (kept.delete(name), (problem.value = { name, text: error.message })); // the next look tries again
    const done = (value: T) => ((box.value = value), problem.peek()?.name === name && (problem.value = null));
    load().then(done, fail);
  }
  return found.value;
}

async function loadColumn(info: ColumnInfo): Promise<Column> {
  const buffer = await binary(info.name);
  const column: Column = { info, numbers: null, codes: null, bytes: null };
  if (info.type === "f32") column.numbers = new Float32Array(buffer);
  else if (info.type === "i32") column.numbers = new Int32Array(buffer);
  else if (info.type === "text") column.codes = new Int32Array(buffer);
  else if (info.type === "uid") column.bytes = new Uint8Array(buffer);
  else column.codes = info.codes === "u16" ? new Uint16Array(buffer) : new Uint8Array(buffer);
  return column;
}

export function column(name: string | null | undefined): Column | null {
  const info = name ? byName.get(name) : undefined;
  return info ? lazily(columns, info.name, () => loadColumn(info)) : null;
}

/** Numbers of a column; a flag counts as 0 or 1. */
export const numbers = (name: string | null | undefined): Numbers | null => column(name)?.numbers ?? null;

export function strings(name: string | null): Strings | null {
  return name ? lazily(texts, name, async () => new Strings(new Uint8Array(await binary(`${name}.strings`)))) : null;
}

/** Return the values of a category or flag column, in the order of their codes. */
export const categoriesOf = (info: ColumnInfo): string[] =>
  info.type === "bool" ? ["no", "yes"] : (info.categories ?? []);

/** Return the trained captions of a row, or those of another column, at most some bytes of them. */
export function captionsOf(row: number, limit = 600, name = captionColumn): string[] {
  const codes = column(name)?.codes, texts = strings(name);
  return codes && texts ? texts.text(codes[row], limit).split("\x1f") : [];
}

export function uidOf(row: number): string {
  const info = byName.get("uid"), loaded = column("uid");
  if (!info || !loaded) return "";
  if (info.type === "text") return strings(info.name)?.text(loaded.codes![row]) ?? "";
  return Array.from(loaded.bytes!.subarray(16 * row, 16 * row + 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Wait until the uids are loaded. */
export function uidsLoaded(): boolean {
  const info = byName.get("uid");
  return Boolean(info && column("uid") && (info.type === "uid" || strings("uid")));
}

/** Return the address of an image, its longest side at most some pixels; exports have one size. */
export function thumbnail(row: number, size: 96 | 256 | 1024): string {
  if (live) return `thumbs/${row}.webp?size=${size}`;
  const piece = held<string>(`thumbs/${row}`);
  return piece === null ? `thumbs/${row}.webp` : `data:image/webp;base64,${piece}`;
}

/** Ask the server for the similarity of each row's image to a text; its refusals are sentences. */
export async function similaritiesTo(text: string): Promise<Float32Array> {
  const answer = await fetch(`meaning?q=${encodeURIComponent(text)}`).catch(() => null);
  if (!answer) throw new Error("The server has stopped: start `clipmem view` again, then reload.");
  if (!answer.ok) throw new Error((await answer.json()).error);
  return new Float32Array(await answer.arrayBuffer());
}

interface Quantized {
  codes: Int8Array; // one vector after another
  scales: Float32Array;
}
interface WordVectors {
  words: Map<string, number>;
  width: number;
  vectors: Quantized;
  images: Quantized; // of the rows
}
let wordsLoaded: Promise<WordVectors> | null = null;

async function loadWords(): Promise<WordVectors> {
  const piece = await script<{ words: string[]; width: number; vectors: [string, string]; images: [string, string] }>("words", "words");
  const read = ([codes, scales]: [string, string]) => ({ codes: new Int8Array(decoded(codes)), scales: new Float32Array(decoded(scales)) });
  const words = new Map(piece.words.map((word, k) => [word, k]));
  return { words, width: piece.width, vectors: read(piece.vectors), images: read(piece.images) };
}

/** Load the vectors of an export: of the words of its captions, and of its images. */
export const wordVectors = (): Promise<WordVectors> => (wordsLoaded ??= loadWords().catch((error) => ((wordsLoaded = null), Promise.reject(error))));

const details = new Map<string, Signal<Detail | null>>();
const blocks = new Map<number, Promise<Detail[]>>();

function block(number: number): Promise<Detail[]> {
  const name = `details/${number}`;
  if (!blocks.has(number)) blocks.set(number, script<Detail[]>(name, name));
  return blocks.get(number)!;
}

export function detail(row: number): Detail | null {
  if (!manifest.details) return null;
  const load = async (): Promise<Detail> =>
    live ? (await get(`pairs/${row}.json`)).json() : (await block(Math.floor(row / BLOCK)))[row % BLOCK];
  return lazily(details, String(row), load);
}

export const LISTED = 10; // neighbors of a pair in each list
const neighborLists = new Map<string, Signal<Neighbor[] | null>>();

export function neighbors(row: number, space: "image" | "text", side: string): Neighbor[] | null {
  const load = async (): Promise<Neighbor[]> => {
    if (live) return (await get(`neighbors/${row}.json?space=${space}&side=${side}&k=20`)).json();
    return (await block(Math.floor(row / BLOCK)))[row % BLOCK].neighbors?.[space]?.[side] ?? [];
  };
  return lazily(neighborLists, `${row} ${space} ${side}`, load);
}

/** Return 1 for the pair and its neighbors by image and by caption in each model, else 0; null until all are loaded. */
export function nearest(row: number): Int32Array | null {
  const lists = manifest.sides.flatMap((side) => [neighbors(row, "image", side), neighbors(row, "text", side)]);
  if (!lists.every(Boolean)) return null;
  const flags = new Int32Array(manifest.rows);
  for (const near of [row, ...lists.flatMap((list) => list!.slice(0, LISTED).map((neighbor) => neighbor.row))]) flags[near] = 1;
  return flags;
}
