/** The grid of pairs: only the cards in sight exist, so that a million scroll as ten do. */

import { batch, computed, signal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { byName, captionsOf, categoriesOf, column, type ColumnInfo, manifest, numbers, searchColumn, strings, captionColumn, thumbnail } from "./data";
import { patternOf } from "./engine";
import { shown } from "./filters";
import { markOf } from "./marks";
import { ordering, similarityOf } from "./meaning";
import { meaning, openPair, pair, query, sort, clearFilters, view } from "./state";
import { suspects } from "./suspects";
import { count, number, visible } from "./text";
import { inkOf } from "./theme";

const GAP = 16, LEAST_WIDTH = 196, CARD = 222, ROW = CARD + GAP;
const MOST_HEIGHT = 8_000_000; // pixels; beyond, the browser's layout loses precision and the scroll bar stands for more

/** The rows that one moves through: those shown, or the suspects to review. */
export const walked = computed<Uint32Array | number[] | null>(() => (view.value === "review" ? suspects.value : shown.value));
/** Place of the current pair among them, or -1. */
export const position = computed(() => (pair.value === null ? -1 : (walked.value?.indexOf(pair.value) ?? -1)));
export const perRow = signal(1);
export const perPage = signal(1);

/** A stretch of a list, from the place where it began to the last one added, and the pair that was current. */
const stretch = signal<{ rows: Uint32Array; from: number; to: number; current: number | null } | null>(null);
/** The first and last place of the selection, and its rows. Another list or another current pair ends it. */
export const selection = computed(() => {
  const chosen = stretch.value;
  if (!chosen || chosen.rows !== shown.value || chosen.current !== pair.value) return null;
  const first = Math.min(chosen.from, chosen.to), last = Math.max(chosen.from, chosen.to);
  return { first, last, rows: chosen.rows.subarray(first, last + 1) };
});
export const clearSelection = () => void (stretch.value = null);

/** Move the current pair to a place, as far as there are pairs; `extend` selects all shown ones up to there. */
export function moveTo(place: number, extend = false): void {
  const rows = walked.value, from = selection.value ? stretch.value!.from : Math.max(0, position.value);
  if (!rows?.length) return;
  const to = Math.max(0, Math.min(rows.length - 1, place));
  batch(() => {
    pair.value = rows[to];
    stretch.value = extend && rows === shown.value ? { rows: shown.value, from, to, current: rows[to] } : null;
  });
}

export function selectAll(): void {
  const rows = shown.value;
  if (rows?.length) stretch.value = { rows, from: 0, to: rows.length - 1, current: pair.value };
}

export const GLYPHS: Record<string, string> = { wrong: "✕", memorized: "◆", fine: "✓", unsure: "?" };

export function Mark({ row }: { row: number }) {
  const mark = markOf(row);
  return mark ? <span class={`mark mark-${mark}`}><span aria-hidden="true">{GLYPHS[mark] ?? "•"}</span> {mark}</span> : null;
}

export function Thumb({ row, size }: { row: number; size: 96 | 256 }) {
  if (!manifest.thumbnails) return <span class="mat none">no image</span>;
  return (
    <span class="mat">
      <img
        key={row} src={thumbnail(row, size)} alt="" loading="lazy" decoding="async"
        onError={(event) => event.currentTarget.parentElement!.classList.add("none")}
      />
    </span>
  );
}

/** Return the value of a category of a row, or null. */
export function categoryOf(name: string, row: number): { code: number; value: string } | null {
  const info = byName.get(name), codes = column(name)?.codes;
  if (!info || !codes || codes[row] >= categoriesOf(info).length) return null;
  return { code: codes[row], value: categoriesOf(info)[codes[row]] };
}

const within = (value: number | null | undefined, info?: ColumnInfo) => (value == null || value !== value ? "" : `± ${number(value, { ...info!, min: 0 })}`);
/** The noise floor of a column's values, and the standard error of one of them; empty without. */
export const floorOf = (info?: ColumnInfo) => (info?.floor && manifest.noise_floor != null ? `noise floor ${within(manifest.noise_floor, info)}` : "");
export const errorOf = (row: number, info?: ColumnInfo) => within(numbers(info?.error)?.[row], info);

/** Compare a value with the spread of held-out pairs, whose expected score is 0; empty without a noise floor. */
export function beyondFloor(row: number, info?: ColumnInfo): string {
  const floor = manifest.noise_floor, value = info?.floor ? numbers(info.name)?.[row] : null;
  if (floor == null || value == null || value !== value) return "";
  if (categoryOf("role", row)?.value === "external") return "held out: chance alone";
  const excess = Math.abs(value - (manifest.noise_center ?? 0)) - floor;
  return excess > 0 ? `${number(excess, { ...info!, min: 0 })} beyond the noise floor` : "within the noise floor";
}
export const floorTitle = () =>
  `Noise floor: held-out pairs, whose expected score is 0, spread over ${number(manifest.noise_center ?? 0)} ${within(manifest.noise_floor, { min: 0 } as ColumnInfo)}. Standard errors cover seeds only.`;

export function Score({ row, name }: { row: number; name: string }) {
  const info = byName.get(name), values = numbers(name);
  return (
    <span class="score">
      <strong>{values ? number(values[row], info) : " "}</strong><span class="error"> {errorOf(row, info)}</span>
    </span>
  );
}

const pattern = computed(() => (meaning.value === null ? patternOf(query.value) : null));

/** A text in which the words that are searched for are highlighted. */
export function Highlighted({ text }: { text: string }) {
  const parts: preact.ComponentChild[] = [];
  let end = 0;
  for (const hit of pattern.value ? text.matchAll(pattern.value) : []) {
    parts.push(text.slice(end, hit.index), <mark key={hit.index}>{hit[0]}</mark>);
    end = hit.index + hit[0].length;
  }
  return <>{parts}{text.slice(end)}</>;
}

/** The first caption of a row or, where another one has a word that is searched for, that one. */
function captionOf(row: number): { text: string; other: boolean } {
  const [text = ""] = captionsOf(row), words = pattern.value;
  if (!words || text.search(words) >= 0) return { text, other: false };
  const all = captionsOf(row, 4000, searchColumn()), place = all.findIndex((one) => one.search(words) >= 0);
  return place < 0 ? { text, other: false } : { text: all[place], other: place > 0 };
}

export function Card({ row, place, total, name }: { row: number; place: number; total: number; name: string }) {
  const role = categoryOf("role", row), planted = categoryOf("planted", row)?.value === "yes", caption = captionOf(row);
  const selected = selection.value !== null && place >= selection.value.first && place <= selection.value.last;
  const similarity = similarityOf(row), beyond = similarity ? "" : beyondFloor(row, byName.get(name));
  return (
    <div
      id={`pair-${row}`} class={`card${pair.value === row ? " current" : ""}${selected ? " selected" : ""}`} role="option"
      aria-selected={selected || pair.value === row} aria-posinset={place + 1} aria-setsize={total}
      onMouseDown={(event) => event.shiftKey && event.preventDefault()} // which would select text
      onClick={(event) => (event.shiftKey ? moveTo(place, true) : (clearSelection(), openPair(row)))}
    >
      <Thumb row={row} size={256} />
      <Mark row={row} />
      {planted && <span class="planted">mismatched</span>}
      <div class="card-line">
        <Score row={row} name={name} />
        {role && <span class="role"><i class="dot" style={{ background: `var(${inkOf("role", role.value, role.code)})` }} />{role.value}</span>}
      </div>
      {similarity && <div class="beyond">similarity to the query {similarity}</div>}
      {beyond && <div class="beyond" title={floorTitle()}>{beyond}</div>}
      <div class="caption" dir="auto">{caption.other && <span class="tag">other caption</span>}<Highlighted text={visible(caption.text)} /></div>
    </div>
  );
}

export function Empty() {
  return (
    <div class="empty">
      <p>No pair passes all filters.</p>
      <button type="button" onClick={clearFilters}>Clear filters <kbd>x</kbd></button>
    </div>
  );
}

const top = signal(0), width = signal(0), height = signal(0);

export function Gallery() {
  const frame = useRef<HTMLDivElement>(null);
  const rows = shown.value;
  const across = Math.max(1, Math.floor((width.value + GAP) / (LEAST_WIDTH + GAP)));
  const lines = Math.ceil((rows?.length ?? 0) / across), full = lines * ROW + GAP;
  const spacer = Math.min(full, MOST_HEIGHT);
  // pixels of the whole list per pixel of the scroll bar
  const scale = full > spacer ? (full - height.value) / (spacer - height.value) : 1;

  useLayoutEffect(() => {
    const element = frame.current!;
    const measure = () => {
      const style = getComputedStyle(element);
      width.value = element.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
      height.value = element.clientHeight;
    };
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    measure();
    return () => observer.disconnect();
  }, []);
  perRow.value = across;
  perPage.value = Math.max(across, Math.floor(height.value / ROW) * across);

  const place = position.value;
  useEffect(() => {
    if (place < 0) return;
    const start = Math.floor(place / across) * ROW, seen = top.peek();
    if (start < seen) frame.current!.scrollTop = start / scale;
    else if (start + ROW + GAP > seen + height.peek()) frame.current!.scrollTop = (start + ROW + GAP - height.peek()) / scale;
  }, [place, across]);
  useEffect(() => {
    if (position.peek() < 0) frame.current!.scrollTop = 0;
  }, [rows]);

  const usable = Boolean(rows && column(captionColumn) && strings(captionColumn)) || captionColumn === null;
  useEffect(() => {
    if (usable) requestAnimationFrame(() => performance.mark("clipmem usable"));
  }, [usable]);

  const wheel = (event: WheelEvent) => {
    if (scale === 1 || event.ctrlKey) return;
    event.preventDefault();
    frame.current!.scrollTop = (top.value + event.deltaY) / scale;
    top.value = Math.max(0, Math.min(full - height.value, top.value + event.deltaY));
  };
  const first = Math.max(0, Math.min(lines - 1, Math.floor(top.value / ROW)));
  const cards = [];
  const end = Math.min(rows?.length ?? 0, (first + Math.ceil(height.value / ROW) + 1) * across);
  for (let k = first * across; k < end; k++) {
    cards.push(<Card key={rows![k]} row={rows![k]} place={k} total={rows!.length} name={sort.value.column} />);
  }
  return (
    <div
      class="gallery" ref={frame} role="listbox" aria-multiselectable="true" tabIndex={0} onWheel={wheel}
      aria-label={`Pairs, sorted by ${ordering.value === null ? byName.get(sort.value.column)?.label : "similarity to the query"}`}
      aria-activedescendant={place >= 0 ? `pair-${pair.value}` : undefined}
      onScroll={() => {
        const place = frame.current!.scrollTop * scale;
        if (Math.abs(place - top.value) > scale) top.value = place;
      }}
    >
      {rows?.length === 0 && <Empty />}
      <div class="spacer" role="presentation" style={{ height: `${spacer}px` }}>
        <div class="window" role="presentation" style={{ height: `${Math.min(height.value, spacer)}px` }}>
          <div
            class="grid" role="presentation"
            style={{ gridTemplateColumns: `repeat(${across}, minmax(0, 1fr))`, transform: `translateY(${first * ROW - top.value + GAP}px)` }}
          >
            {cards}
          </div>
        </div>
      </div>
    </div>
  );
}

/** The row of a place, for the line that says where one is. */
export const placeText = () =>
  position.value >= 0 ? `pair ${count(position.value + 1)} of ${count(walked.value?.length ?? 0)}, ` : "";
