/** Marks of pairs: saved in the run folder by the server, or by the widget of a notebook; in an export by the browser. */

import { computed, signal } from "@preact/signals";
import { type Change, live, manifest, token, uidOf } from "./data";

const UNMARKED = 255, POLL = 3000, LATE = 3000; // ms

let codes = new Uint8Array(0);
/** Counts the changes of marks. */
export const marksChanged = signal(0);
/** Number of changes that are not saved yet, and why. */
export const unsaved = signal(0), refusal = signal("");
let waiting: Change[] = []; // live: to be sent; export: all changes, the last of a row counts
let sending = false;
type Decision = Pick<Change, "row" | "mark" | "caption">;
const undoable: Decision[][] = []; // steps, the last one last
const captions = new Map<number, string>(); // of rows marked wrong
/** How many marks another window changed since this one opened. */
export const elsewhere = signal(0);
let polled = false;
/** In a frame that a notebook made of the page's text: a widget around it may save marks. */
export const framed = typeof document !== "undefined" && location.protocol === "about:" && parent !== window;
/** Whether it does: marks need no file. */
export const hosted = signal(false);
let asked = 0, settle: (error: string | null) => void = () => {};

const place = () => `clipmem-marks-${manifest.hash}`;

/** Return the code of each row's mark, an index into the manifest's marks, 255 for none. */
export const codesOfMarks = () => codes;

export function markOf(row: number): string | null {
  void marksChanged.value;
  return manifest.marks[codes[row]] ?? null;
}

/** Return the new caption that somebody gave a row, or null. */
export function captionOf(row: number): string | null {
  void marksChanged.value;
  return captions.get(row) ?? null;
}

const marked = computed(() => {
  const rows: number[] = [];
  void marksChanged.value;
  for (let row = 0; row < codes.length; row++) if (codes[row] !== UNMARKED) rows.push(row);
  return rows;
});
export const markedRows = (): number[] => marked.value;

function show({ row, mark, caption }: Decision): void {
  codes[row] = mark ? manifest.marks.indexOf(mark) : UNMARKED;
  if (caption) captions.set(row, caption);
  else captions.delete(row);
}

function store(): void {
  if (hosted.value) return;
  try {
    if (waiting.length) localStorage.setItem(place(), JSON.stringify(waiting));
    else localStorage.removeItem(place());
  } catch {
    unsaved.value = waiting.length; // no storage in this browser: say that the marks live in this window only
    if (!live) refusal.value = "export them (e) before you close it.";
  }
}

function change(decisions: Decision[], note: string | null): void {
  const time = new Date().toISOString();
  const changes = decisions.map((decision) => ({ ...decision, time, note }));
  changes.forEach(show);
  waiting = waiting.concat(changes);
  store();
  marksChanged.value++;
  void send();
}

/** Mark several rows in one step, which one undo takes back. */
export function setMarks(rows: ArrayLike<number>, mark: string | null, more: Partial<Pick<Change, "note" | "caption">> = {}): void {
  if (rows.length) undoable.push(Array.from(rows, (row) => ({ row, mark: manifest.marks[codes[row]] ?? null, caption: captions.get(row) ?? null })));
  change(Array.from(rows, (row) => ({ row, mark, caption: more.caption ?? null })), more.note ?? null);
}

export const setMark = (row: number, mark: string | null, more: Partial<Pick<Change, "note" | "caption">> = {}): void => setMarks([row], mark, more);

/** Take back the last step and return its first row. */
export function undo(): number | null {
  const last = undoable.pop();
  if (!last?.length) return null;
  change(last, null);
  return last[0].row;
}

type Sent = Pick<Change, "row" | "mark" | "note" | "caption">[];

/** Send marks to the server; return why they are not saved: null if they are, "" without an answer. */
async function toServer(marks: Sent): Promise<string | null> {
  const headers = { "content-type": "application/json", "x-clipmem-token": token };
  const answer = await fetch("marks", { method: "POST", headers, body: JSON.stringify(marks) }).catch(() => null);
  if (!answer) return "";
  return answer.ok ? null : (await answer.json().catch(() => ({}))).error ?? `the server answered ${answer.status}`;
}

/** The same with the widget of a notebook, whose Python answers when it is not busy. */
function toWidget(marks: Sent): Promise<string | null> {
  const late = setTimeout(() => hosted.value && ((unsaved.value = waiting.length), (refusal.value = "Python is busy, or has stopped.")), LATE);
  parent.postMessage({ from: (asked = Math.random()), marks }, "*"); // a frame of text does not know who is around it
  return new Promise((resolve) => (settle = (error) => (clearTimeout(late), resolve(error))));
}

/** Take over what the widget says is saved, by this page or another one of it. */
function hear({ source, data }: MessageEvent): void {
  if (source !== parent || typeof data?.error !== "string") return;
  hosted.value = true;
  if (data.to === asked) settle(data.error || null);
  if (Array.isArray(data.marked)) {
    manifest.marked = data.marked;
    codes.fill(UNMARKED);
    captions.clear();
    changes().forEach(show);
    marksChanged.value++;
  }
  if (!data.error) void send(); // else two pages would answer each other forever
}

async function send(): Promise<void> {
  if (!(live || hosted.value) || sending || !waiting.length) return;
  sending = true;
  const sent = waiting.length, marks = waiting.map(({ row, mark, note, caption }) => ({ row, mark, note, caption }));
  const error = await (live ? toServer : toWidget)(marks);
  if (error === null) {
    waiting = waiting.slice(sent);
    store();
  }
  refusal.value = error ?? "";
  unsaved.value = waiting.length;
  sending = false;
  if (error === null && waiting.length) void send();
}

/** Read what this and other windows saved. */
async function poll(): Promise<void> {
  if (document.hidden || sending) return;
  if (waiting.length) await send();
  const before = marksChanged.peek();
  const answer = await fetch("marks.json").catch(() => null);
  if (!answer?.ok) return;
  const saved: Record<string, [string, string | null]> = await answer.json();
  if (sending || waiting.length || marksChanged.peek() !== before) return; // older than what was marked meanwhile
  const rows = new Set([...Object.keys(saved).map(Number), ...markedRows()]);
  const differ = [...rows].filter((row) => {
    const [mark, caption] = saved[row] ?? [null, null];
    return (manifest.marks[codes[row]] ?? null) !== mark || (captions.get(row) ?? null) !== caption;
  });
  if (polled) elsewhere.value += differ.length;
  polled = true;
  if (!differ.length) return;
  for (const row of differ) show({ row, mark: saved[row]?.[0] ?? null, caption: saved[row]?.[1] ?? null });
  marksChanged.value++;
}

export function startMarks(): void {
  codes = new Uint8Array(manifest.rows).fill(UNMARKED);
  try {
    waiting = JSON.parse(localStorage.getItem(place()) ?? "[]");
  } catch {
    waiting = [];
  }
  changes().forEach(show);
  if (framed) {
    addEventListener("message", hear);
    void toWidget([]);
  }
  if (!live) return;
  void poll();
  setInterval(poll, POLL);
  addEventListener("visibilitychange", () => void poll());
}

/** All changes of an export: the marks that the run had, then those of this browser. */
const changes = () => [...(manifest.marked ?? []), ...waiting];

/** Return the note of a pair's last mark in this browser or, in an export, in the run. */
export const noteOf = (row: number) => changes().filter((change) => change.row === row).at(-1)?.note;

/** Return the last change of each marked row of an export, as lines of the run's marks file. */
export function marksAsLines(): string {
  const last = new Map(changes().map((change) => [change.row, change]));
  const line = ({ row, mark, time, note, caption }: Change) => `${JSON.stringify({ uid: uidOf(row), mark, time, note, ...(caption ? { caption } : {}) })}\n`;
  return Array.from(last.values(), line).join("");
}
