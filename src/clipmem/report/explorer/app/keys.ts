/** Keys, declared once: the handler and the help read this list. */

import { signal } from "@preact/signals";
import { captionColumn, IMAGE_GROUP, manifest, numbers } from "./data";
import { MISSING } from "./engine";
import { exporting } from "./dialogs";
import { clearSelection, moveTo, perPage, perRow, position, selectAll, selection, walked } from "./gallery";
import { setMark, setMarks } from "./marks";
import { accept, back } from "./review";
import { shown } from "./filters";
import { clearFilters, enlarged, help, openPair, opened, pair, reverse, showSame, toNeighbors, view, type View } from "./state";
import { decide, editing } from "./suspects";
import { count } from "./text";

export interface Binding {
  keys: string[];
  about: string;
  run: (key: string, shift: boolean) => void;
}

const MOST = 20000; // marks in one step, so that the browser can keep them until they are saved
/** Why the last step was refused. */
export const refusedStep = signal("");

function markAll(rows: Uint32Array, mark: string | null): void {
  refusedStep.value = rows.length > MOST ? `At most ${count(MOST)} pairs are marked in one step: select or show fewer.` : "";
  if (!refusedStep.value) setMarks(rows, mark);
}

/** Mark the selected pairs; without a selection the current pair, if it is to be seen, and go to the next one. */
export function marking(mark: string | null): void {
  if (view.value === "review") return decide(mark);
  if (selection.value) return markAll(selection.value.rows, mark);
  const row = pair.value, rows = walked.value;
  if (row === null || !rows || (position.value < 0 && !opened.value)) return;
  const next = position.value >= 0 ? rows[position.value + 1] : undefined;
  setMark(row, mark);
  if (mark !== null && next !== undefined) pair.value = next;
}

const focus = (id: string) => {
  const element = document.getElementById(id);
  element?.scrollIntoView();
  element?.focus({ preventScroll: true });
};
const steps: Record<string, () => number> = {
  ArrowLeft: () => -1,
  ArrowRight: () => 1,
  k: () => -1,
  j: () => 1,
  ArrowUp: () => -perRow.value,
  ArrowDown: () => perRow.value,
  PageUp: () => -perPage.value,
  PageDown: () => perPage.value,
  Home: () => -Infinity,
  End: () => Infinity,
};

/** Move by some places; a first step shows the first pair, and steps off an end stay there. */
function move(key: string, shift: boolean): void {
  const total = walked.value?.length ?? 0, by = steps[key](), place = position.value;
  if (!total) return;
  if (place < 0) return moveTo(by === Infinity ? total - 1 : 0, shift);
  moveTo(Math.max(0, Math.min(total - 1, place + by)), shift);
}

const VIEWS: View[] = ["gallery", "map", "scores", "compare", "review"];
const marks: [string, string][] = [["w", "mismatched caption (remove)"], ["m", "memorized"], ["f", "fine (keep)"], ["u", "unsure"]];

function close(): void {
  if (selection.value) clearSelection();
  else if (opened.value) opened.value = false;
  else pair.value = null;
}

export const bindings: Binding[] = [
  { keys: Object.keys(steps), about: "move to another pair; with Shift, select all up to there", run: move },
  { keys: ["a"], about: "select all shown pairs: marks apply to all of them, and one undo takes them back; in the review, accept the suggested caption",
    run: () => (view.value === "review" ? accept() : selectAll()) },
  { keys: ["Enter"], about: "open the pair, then enlarge its image",
    run: () => opened.value ? (enlarged.value = manifest.thumbnails) : (clearSelection(), openPair(pair.value ?? walked.value?.[0] ?? null)) },
  { keys: ["Escape"], about: "clear the selection, close the pair, then leave it", run: close },
  ...marks.map(([key, about]) => ({
    keys: [key], about: `mark: ${about}, and go to the next pair`,
    run: () => marking(manifest.marks.find((mark) => mark.startsWith(key)) ?? null),
  })),
  { keys: ["t"], about: "in the review, type a caption", run: () => view.value === "review" && pair.value !== null && (editing.value = true) },
  { keys: ["Backspace"], about: "clear the mark", run: () => marking(null) },
  { keys: ["z"], about: "undo the last mark, or the marks of the last selection", run: back },
  { keys: ["/"], about: "search all captions: word, \"two words\", -without, and -w for whole words; ~ red car: images by meaning", run: () => focus("search") },
  { keys: ["s"], about: "choose the score to sort by", run: () => focus("sort") },
  { keys: ["v"], about: "choose or save a view: suspects, most memorized, and others", run: () => (focus("views"), document.getElementById("views")!.click()) },
  { keys: ["r"], about: "reverse the order", run: reverse },
  { keys: ["1", "2", "3", "4", "5"], about: "gallery, map, two scores, before and after, review",
    run: (key) => (manifest.review || key !== "5") && (view.value = VIEWS[Number(key) - 1]) },
  { keys: ["h"], about: "go to the filters; arrows move the ends of a histogram, Delete clears it",
    run: () => document.querySelector<HTMLElement>(".facets .choice, .facets .handle")?.focus() },
  { keys: ["x"], about: "clear all filters", run: clearFilters },
  { keys: ["c"], about: "all pairs with this caption",
    run: () => pair.value !== null && captionColumn && showSame("caption", pair.value) },
  { keys: ["i"], about: "all pairs with this image",
    run: () => pair.value !== null && (numbers(IMAGE_GROUP)?.[pair.value] ?? MISSING) !== MISSING && showSame("image", pair.value) },
  { keys: ["o"], about: "keep this one: mark all other shown pairs with this image as wrong", run: () => {
    const row = pair.value, groups = numbers(IMAGE_GROUP), rows = shown.value;
    if (row === null || !rows || !groups || groups[row] === MISSING) return;
    markAll(rows.filter((other) => other !== row && groups[other] === groups[row]), "wrong");
  } },
  { keys: ["n"], about: "nearest neighbors of the pair", run: () => pair.value !== null && (opened.value = toNeighbors.value = true) },
  { keys: ["g"], about: "nearest neighbors of the pair in the gallery",
    run: () => pair.value !== null && manifest.neighbors && showSame("neighbors", pair.value) },
  { keys: ["e"], about: "export the shown or the marked pairs", run: () => (exporting.value = true) },
  { keys: ["?"], about: "this help", run: () => (help.value = true) },
];

const byKey = new Map(bindings.flatMap((one) => one.keys.map((key) => [key, one] as const)));

export function startKeys(): void {
  addEventListener("keydown", (event) => {
    const target = event.target as HTMLElement;
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (target.matches("input, select, textarea")) {
      if (event.key === "Escape") target.blur();
      return;
    }
    // what has the focus keeps its own keys: those that press, and those that scroll
    if (target.closest(".detail, .lists") && /^(Arrow(Up|Down)|Page|Home|End)/.test(event.key)) return;
    if (event.key === "Enter" && target.matches("button, a, summary")) return;
    if (target.matches("[role=tab]") && event.key.startsWith("Arrow")) return;
    const binding = byKey.get(event.key);
    if (!binding) return;
    event.preventDefault();
    binding.run(event.key, event.shiftKey);
  });
}
