/** The list of suspects to review: its order, what is decided, how many are expected to be wrong, and the cleaned data. */

import { computed, effect, signal } from "@preact/signals";
import { captionColumn, captionsOf, column, live, manifest, numbers, strings, token } from "./data";
import { commonWords, evidence, MISSING } from "./engine";
import { captionOf, markOf, marksChanged, setMark, unsaved } from "./marks";
import { pair, view } from "./state";

export interface Review {
  suspects: number[];
  expected: { number: number; low: number; high: number };
  curve: { length: number; precision: number; low: number; high: number; recall: number }[];
  learned: boolean;
}
export interface Written {
  path: string;
  read: number;
  kept: number;
  corrected: number;
  removed: number;
}
export interface Writing {
  running: boolean;
  stage: string;
  share: number | null;
  error: string;
  written: Written | null;
}

const DELAY = 400; // ms after the last mark
const POLL = 500;

/** What the server counts, null until it answered; an export has no server. */
export const review = signal<Review | null>(null);
export const writing = signal<Writing | null>(null);
export const editing = signal(false);
/** Rows in the order of the review. */
const order = signal<number[] | null>(null);

/** Whether the cleaned data can be written from the page. */
export const writes = () => live && Boolean(manifest.writes);
const decided = (row: number) => markOf(row) !== null;

/** The suspects as `clipmem curate` ordered them; null until they are loaded. */
const listed = computed<number[] | null>(() => {
  if (!manifest.review) return [];
  const rank = numbers("suspect_rank"), codes = column("is_suspect")?.codes;
  if (!rank || !codes) return null;
  const rows: number[] = [];
  for (let row = 0; row < codes.length; row++) if (codes[row] === 1 && rank[row] !== MISSING) rows.push(row);
  return rows.sort((one, other) => rank[one] - rank[other]);
});
export const suspects = computed(() => order.value ?? listed.value);

/** How many of the suspects are removed, corrected, kept, or marked otherwise. */
export const tally = computed(() => {
  void marksChanged.value;
  const sums = { removed: 0, corrected: 0, kept: 0, other: 0 };
  for (const row of suspects.value ?? []) {
    const mark = markOf(row);
    if (mark === "wrong") sums[captionOf(row) === null ? "removed" : "corrected"]++;
    else if (mark === "fine") sums.kept++;
    else if (mark !== null) sums.other++;
  }
  return sums;
});

/** Decide about the current suspect, and go to the next one without a mark. */
export function decide(mark: string | null, caption: string | null = null): void {
  const rows = suspects.value, row = pair.value;
  if (!rows || row === null || !rows.includes(row)) return;
  setMark(row, mark, { caption });
  editing.value = false;
  if (mark === null) return;
  const place = rows.indexOf(row), rest = [...rows.slice(place + 1), ...rows.slice(0, place)];
  pair.value = rest.find((one) => !decided(one)) ?? row;
}

const SAMPLE = 2000; // pairs whose captions say which words are common
const common = computed(() => {
  const step = Math.ceil(manifest.rows / SAMPLE), captions: string[] = [];
  if (column(captionColumn) && strings(captionColumn)) for (let row = 0; row < manifest.rows; row += step) captions.push(captionsOf(row).join(" "));
  return commonWords(captions);
});
/** Compare the caption of a pair with those of its nearest images, in a sentence. */
export const evidenceOf = (row: number, near: number[]): string =>
  evidence(captionsOf(row)[0] ?? "", near.map((other) => captionsOf(other).join(" ")), common.value);

/** Take the order of the server for the suspects that nobody looked at; the others stay where they were. */
function take(next: Review): void {
  const seen = (suspects.peek() ?? []).filter((row) => decided(row) || row === pair.peek()), known = new Set(seen);
  const more = next.suspects.filter((row) => !known.has(row));
  order.value = [...seen, ...more.filter(decided), ...more.filter((row) => !decided(row))];
  review.value = next;
}

async function ask(): Promise<void> {
  const answer = await fetch("review.json").catch(() => null);
  if (answer?.ok) take(await answer.json());
}

/** Follow the marks: the server counts again once they are saved. */
export function startReview(): void {
  if (!manifest.review) return;
  effect(() => {
    if (view.value === "review" && pair.peek() === null && suspects.value?.length) {
      pair.value = suspects.value.find((row) => !decided(row)) ?? suspects.value[0];
    }
  });
  if (!writes()) return;
  let timer = 0;
  effect(() => {
    if (marksChanged.value < 0 || unsaved.value > 0 || view.value !== "review") return;
    clearTimeout(timer);
    timer = window.setTimeout(() => void ask(), DELAY);
  });
}

async function follow(answer: Response): Promise<void> {
  writing.value = await answer.json();
  while (writing.value?.running) {
    await new Promise((resolve) => setTimeout(resolve, POLL));
    const next = await fetch("write.json").catch(() => null);
    if (!next?.ok) throw new Error("the server has stopped; its terminal says why");
    writing.value = await next.json();
  }
}

/** Write the cleaned data into a folder, and follow how far that is. */
export async function write(path: string, unmarked: "remove" | "correct" | "keep"): Promise<void> {
  const headers = { "content-type": "application/json", "x-clipmem-token": token };
  const body = JSON.stringify({ path, correct: unmarked === "correct", reviewed: unmarked === "keep" });
  const failed = (error: string) => (writing.value = { running: false, stage: "", share: null, error, written: null });
  try {
    const answer = await fetch("write", { method: "POST", headers, body });
    if (answer.ok) await follow(answer);
    else failed((await answer.json()).error);
  } catch (error) {
    failed((error as Error).message);
  }
}
