/** Marks of pairs: saved by the server in the run folder, or by the browser in an export. None is lost on the way. */

import { computed, signal } from "@preact/signals";
import { live, manifest, token, uidOf } from "./data";

interface Change {
  row: number;
  mark: string | null;
  time: string;
  note: string | null;
}

const UNMARKED = 255, POLL = 3000;

let codes = new Uint8Array(0);
/** Counts the changes of marks. */
export const marksChanged = signal(0);
/** Number of changes that are not saved yet, and why. */
export const unsaved = signal(0), refusal = signal("");
let waiting: Change[] = []; // live: to be sent; export: all changes, the last of a row counts
let sending = false;
const undoable: [row: number, mark: string | null][][] = []; // steps, the last one last

const place = () => `clipmem-marks-${manifest.hash}`;

/** Return the code of each row's mark, an index into the manifest's marks, 255 for none. */
export const codesOfMarks = () => codes;

export function markOf(row: number): string | null {
  void marksChanged.value;
  return manifest.marks[codes[row]] ?? null;
}

const marked = computed(() => {
  const rows: number[] = [];
  void marksChanged.value;
  for (let row = 0; row < codes.length; row++) if (codes[row] !== UNMARKED) rows.push(row);
  return rows;
});
export const markedRows = (): number[] => marked.value;

function show({ row, mark }: Pick<Change, "row" | "mark">): void {
  codes[row] = mark ? manifest.marks.indexOf(mark) : UNMARKED;
}

function store(): void {
  try {
    if (waiting.length) localStorage.setItem(place(), JSON.stringify(waiting));
    else localStorage.removeItem(place());
  } catch {
    unsaved.value = waiting.length; // no storage in this browser: say that the marks live in this window only
  }
}

function change(marks: [row: number, mark: string | null][], note: string | null): void {
  const time = new Date().toISOString();
  const changes = marks.map(([row, mark]) => ({ row, mark, time, note }));
  changes.forEach(show);
  waiting = waiting.concat(changes);
  store();
  marksChanged.value++;
  void send();
}

/** Mark several rows in one step, which one undo takes back. */
export function setMarks(rows: ArrayLike<number>, mark: string | null, note: string | null = null): void {
  if (rows.length) undoable.push(Array.from(rows, (row) => [row, manifest.marks[codes[row]] ?? null]));
  change(Array.from(rows, (row) => [row, mark]), note);
}

export const setMark = (row: number, mark: string | null, note: string | null = null): void => setMarks([row], mark, note);

/** Take back the last step and return its first row. */
export function undo(): number | null {
  const last = undoable.pop();
  if (!last?.length) return null;
  change(last, null);
  return last[0][0];
}

async function send(): Promise<void> {
  if (!live || sending || !waiting.length) return;
  sending = true;
  const sent = waiting.length, headers = { "content-type": "application/json", "x-clipmem-token": token };
  const body = JSON.stringify(waiting.map(({ row, mark, note }) => ({ row, mark, note })));
  const answer = await fetch("marks", { method: "POST", headers, body }).catch(() => null);
  if (answer?.ok) {
    waiting = waiting.slice(sent);
    store();
  }
  refusal.value = answer && !answer.ok ? (await answer.json().catch(() => ({}))).error ?? `the server answered ${answer.status}` : "";
  unsaved.value = waiting.length;
  sending = false;
  if (answer?.ok && waiting.length) void send();
}

/** Read what this and other windows saved. */
async function poll(): Promise<void> {
  if (document.hidden || sending) return;
  if (waiting.length) await send();
  const before = marksChanged.peek();
  const answer = await fetch("marks.json").catch(() => null);
  if (!answer?.ok) return;
  const saved: Record<string, string> = await answer.json();
  if (sending || waiting.length || marksChanged.peek() !== before) return; // older than what was marked meanwhile
  const next = new Uint8Array(manifest.rows).fill(UNMARKED);
  for (const [row, mark] of Object.entries(saved)) next[Number(row)] = manifest.marks.indexOf(mark);
  if (next.every((code, row) => code === codes[row])) return;
  codes = next;
  marksChanged.value++;
}

export function startMarks(): void {
  codes = new Uint8Array(manifest.rows).fill(UNMARKED);
  try {
    waiting = JSON.parse(localStorage.getItem(place()) ?? "[]");
  } catch {
    waiting = [];
  }
  waiting.forEach(show);
  if (!live) return;
  void poll();
  setInterval(poll, POLL);
  addEventListener("visibilitychange", () => void poll());
}

/** Return the last change of each marked row of an export, as lines of the run's marks file. */
export function marksAsLines(): string {
  const last = new Map(waiting.map((change) => [change.row, change]));
  const line = ({ row, mark, time, note }: Change) => `${JSON.stringify({ uid: uidOf(row), mark, time, note })}\n`;
  return Array.from(last.values(), line).join("");
}
