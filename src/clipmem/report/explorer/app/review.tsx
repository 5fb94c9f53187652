/** Suspects one by one: the image, the caption, why it is suspect, and what to do with it. */

import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { captionsOf, type Detail, detail, live, manifest, thumbnail } from "./data";
import { exporting } from "./dialogs";
import { perRow, Thumb } from "./gallery";
import { captionOf, hosted, markOf, marksChanged, undo } from "./marks";
import { openPair, opened, pair } from "./state";
import { decide, editing, evidenceOf, review, suspects, tally } from "./suspects";
import { count, visible } from "./text";

/** Say how far the review is, and how many suspects are expected to be wrong. */
export function Progress() {
  const total = suspects.value?.length ?? 0, { removed, corrected, kept, other } = tally.value, state = review.value;
  const done = removed + corrected + kept + other;
  const parts = [[removed, "removed"], [corrected, "corrected"], [kept, "kept"], [other, "marked otherwise"]] as const;
  const said = parts.filter(([number]) => number > 0).map(([number, word]) => `${count(number)} ${word}`).join(", ");
  const whole = (value: number) => count(Math.round(value));
  return (
    <div class="progress">
      <span role="status">
        <b>{count(done)}</b> of {count(total)} suspects reviewed{said && `: ${said}`}
        {state && <span title="Calibrated on swapped captions, and shifted by your marks; 95% interval.">
          ; about <b>{whole(state.expected.number)}</b> [{whole(state.expected.low)}, {whole(state.expected.high)}] of the suspects are expected to be wrong
        </span>}
        {state?.learned && "; their order follows your marks"}
      </span>
      <progress max={Math.max(1, total)} value={done} aria-label="Suspects reviewed" />
    </div>
  );
}

/** What is expected of lists of other lengths, in percent. */
function Lengths() {
  const percent = (share: number) => Math.round(100 * share), curve = review.value?.curve ?? [];
  return !!curve.length && (
    <details class="lengths"><summary>Expected of lists of other lengths</summary>
      <table>
        <thead><tr><th scope="col">first</th><th scope="col">mismatched</th><th scope="col">of all mismatched</th></tr></thead>
        <tbody>{curve.map(({ length, precision, low, high, recall }) => <tr><th scope="row">{count(length)}</th><td>{percent(precision)}% [{percent(low)}, {percent(high)}]</td><td>{percent(recall)}%</td></tr>)}</tbody>
      </table>
      <p class="soft">Of the pairs that no rule flags. <code>--suspects 500</code> ends the list there.</p>
    </details>
  );
}

function Nearest({ rows }: { rows: number[] }) {
  if (!rows.length) return null;
  return (
    <section class="near" aria-label="Nearest images">
      <h2>Nearest images</h2>
      <ol>
        {rows.map((row) => (
          <li key={row}>
            <button type="button" onClick={() => openPair(row)}>
              <Thumb row={row} size={256} />
              <span class="caption" dir="auto">{visible(captionsOf(row)[0] ?? "")}</span>
            </button>
          </li>
        ))}
      </ol>
    </section>
  );
}

function Editor({ row, start }: { row: number; start: string }) {
  const field = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => ((field.current!.value = start), field.current!.focus(), field.current!.select()), [row]); // before the next key arrives
  const save = () => {
    const text = field.current!.value.trim();
    if (text) decide("wrong", text);
  };
  return (
    <form class="editor" onSubmit={(event) => (event.preventDefault(), save())}>
      <label for="caption">New caption</label>
      <textarea
        id="caption" ref={field} rows={2} maxLength={10000}
        onKeyDown={(event) => {
          if (event.key === "Enter" && !event.shiftKey) (event.preventDefault(), save());
          if (event.key === "Escape") (event.stopPropagation(), (editing.value = false));
        }}
      />
      <button type="submit" class="primary">Save <kbd>Enter</kbd></button>
      <button type="button" onClick={() => (editing.value = false)}>Cancel <kbd>Esc</kbd></button>
    </form>
  );
}

const MOST = 4; // times that a small image is enlarged
const OUTCOME: Record<string, string> = { wrong: "to be removed", fine: "kept", memorized: "memorized; not decided", unsure: "unsure; not decided" };

function Suspect({ row, found }: { row: number; found: Detail | null }) {
  void marksChanged.value;
  const why = found?.why, mark = markOf(row), caption = captionOf(row), texts = captionsOf(row, 4000);
  const button = (key: string, text: string, run: () => void, pressed: boolean, kind: string) => (
    <button type="button" class={`mark-${kind}`} aria-pressed={pressed} onClick={run}>{text} <kbd>{key}</kbd></button>
  );
  return (
    <div class="about">
      <h2>Caption</h2>
      <p class={`said${caption === null ? "" : " replaced"}`} dir="auto">{visible(texts[0] ?? "")}</p>
      {texts.length > 1 && <p class="soft" dir="auto">Also: {visible(texts.slice(1, 6).join(" · "))}</p>}
      {why && <p class="why"><b>Why: </b>{why.reasons.join("; ")}. {visible(evidenceOf(row, why.near))}</p>}
      {found && !why && <p class="why soft">You marked this pair; nothing else makes it a suspect.</p>}
      {why?.suggested && <p class="suggested"><b>Suggested: </b><span dir="auto">{why.suggested}</span></p>}
      {mark && (
        <p role="status" class={`outcome mark-${mark}`}>
          <b>{caption === null ? OUTCOME[mark] ?? mark : "new caption"}</b>
          {caption !== null && <span dir="auto">: {visible(caption)}</span>}
        </p>
      )}
      {editing.value ? <Editor row={row} start={caption ?? why?.suggested ?? texts[0] ?? ""} /> : (
        <div class="marking" role="group" aria-label="Decide about this pair">
          {button("f", "Keep", () => decide("fine"), mark === "fine", "fine")}
          {button("w", "Remove", () => decide("wrong"), mark === "wrong" && caption === null, "wrong")}
          {why?.suggested && button("a", "Accept suggestion", accept, mark === "wrong" && caption === why.suggested, "wrong")}
          {button("t", "Type a caption", () => (editing.value = true), mark === "wrong" && caption !== null && caption !== why?.suggested, "wrong")}
          <button type="button" onClick={() => back()}>Undo <kbd>z</kbd></button>
        </div>
      )}
      {why && <Nearest rows={why.near} />}
    </div>
  );
}

/** Give the current suspect the suggested caption, if there is one. */
export function accept(): void {
  const suggested = pair.value === null ? null : detail(pair.value)?.why?.suggested;
  if (suggested) decide("wrong", suggested);
}

/** Take the last mark back, and show its pair. */
export function back(): void {
  const row = undo();
  if (row !== null) pair.value = row;
}

export function ReviewView() {
  const rows = suspects.value, row = pair.value, panel = useRef<HTMLDivElement>(null);
  useEffect(() => {
    perRow.value = 1;
    editing.value = false;
    panel.current?.scrollTo(0, 0);
    for (const next of rows?.slice((row === null ? 0 : rows.indexOf(row)) + 1).slice(0, 2) ?? []) (detail(next), (new Image().src = thumbnail(next, 1024)));
  }, [row]);
  if (!rows) return <p class="empty">…</p>;
  if (!rows.length) return <p class="empty">No pair is a suspect: no more captions look wrong than chance gives.</p>;
  if (row === null || !rows.includes(row)) {
    return (
      <div class="empty">
        <p>{row === null ? "…" : "This pair is not in the list of suspects."}</p>
        <button type="button" class="primary" onClick={() => (pair.value = rows[0])}>Go to the first suspect</button>
      </div>
    );
  }
  const { removed, corrected, kept, other } = tally.value, ended = removed + corrected + kept + other >= rows.length;
  return (
    <div class="review" ref={panel}>
      <figure class="mat">
        {manifest.thumbnails && <img key={row} src={thumbnail(row, 1024)} alt={captionsOf(row, 200)[0] ?? ""} onLoad={(event) => (event.currentTarget.style.maxWidth = `${MOST * event.currentTarget.naturalWidth}px`)} onError={(event) => event.currentTarget.parentElement!.classList.add("none")} />}
      </figure>
      <div class="side">
        {ended && <p class="done" role="status"><b>All suspects are reviewed.</b></p>}
        <Suspect row={row} found={detail(row)} />
        <p class="links">
          <button type="button" onClick={() => (opened.value = !opened.value)}>{opened.value ? "Hide" : "Show"} all scores <kbd>{opened.value ? "Esc" : "Enter"}</kbd></button>
          <button type="button" class={ended ? "primary" : ""} onClick={() => (exporting.value = true)}>{live || hosted.value ? "Write cleaned data" : "Get your marks"} <kbd>e</kbd></button>
        </p>
        <Lengths />
      </div>
    </div>
  );
}
