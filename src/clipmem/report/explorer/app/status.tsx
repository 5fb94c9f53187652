/** The line above the pairs: how many are shown, which filters hide the others, and what is not saved. */

import { byName, live, manifest, problem } from "./data";
import { shown } from "./filters";
import { floorOf, placeText, selection } from "./gallery";
import { refusedStep } from "./keys";
import { elsewhere, framed, markedRows, marksChanged, refusal, unsaved } from "./marks";
import { ordering, pending, remark } from "./meaning";
import { Progress } from "./review";
import { clearFilters, filters, meaning, sort, view } from "./state";
import { count, visible } from "./text";

/** A chip per filter. The focus stays among them, or goes on to the pairs. */
function Filters() {
  const all = filters();
  const remove = (clear: () => void) => {
    clear();
    requestAnimationFrame(() => document.querySelector<HTMLElement>(".chip button, .gallery, .scatter")?.focus());
  };
  if (!all.length) return null;
  return (
    <ul class="chips" aria-label="Filters in force">
      {all.map((filter) => (
        <li class="chip" key={filter.text}>
          <span dir="auto">{filter.text}</span>
          <button type="button" aria-label={`Remove filter ${filter.text}`} onClick={() => remove(filter.clear)}>×</button>
        </li>
      ))}
      <li><button type="button" class="quiet" onClick={clearFilters}>Clear filters <kbd>x</kbd></button></li>
    </ul>
  );
}

export function Status() {
  void marksChanged.value;
  const total = shown.value?.length, marked = markedRows().length, floor = floorOf(byName.get(sort.value.column));
  const chosen = selection.value?.rows;
  return (
    <div class="status">
      {view.value === "review" ? <Progress /> : <span role="status">
        {placeText()}<b>{total === undefined ? "…" : count(total)}</b> of {count(manifest.rows)} shown
        {marked > 0 && <>, <b>{count(marked)}</b> marked</>}
        {chosen && <>, <b>{count(chosen.length)}</b> selected (Esc clears)</>}{ordering.value !== null ? `, most similar to “${visible(ordering.value)}” first` : floor && `; ${floor}`}
        {pending.value !== null && `; looking for “${visible(pending.value)}”…`}{meaning.value === "" && "; type what the images show, for example ~ red car at night"}
      </span>}
      {view.value !== "review" && <Filters />}
      {elsewhere.value > 0 && (
        <span class="chip">
          {elsewhere.value === 1 ? "1 mark" : `${count(elsewhere.value)} marks`} changed in another window; the last mark of a pair counts
          <button type="button" aria-label="Dismiss" onClick={() => (elsewhere.value = 0)}>×</button>
        </span>
      )}
      {remark.value && <span class="warn" role="alert">{visible(remark.value)}</span>}
      {chosen && refusedStep.value && <span class="warn" role="alert">{refusedStep.value}</span>}
      {problem.value && <span class="warn" role="alert">Not loaded: {problem.value.text} <button type="button" aria-label="Dismiss" onClick={() => (problem.value = null)}>×</button></span>}
      {unsaved.value > 0 && <span class="warn" role="alert">{unsaved.value === 1 ? "1 mark" : `${count(unsaved.value)} marks`} not saved yet, but kept in this {framed ? "page" : "browser"}: {visible(refusal.value) || "the server does not answer."}</span>}
      {live && manifest.marks_file === null && marked > 0 && <span class="warn" role="alert">The folder cannot be written: marks stay in this browser.</span>}
    </div>
  );
}
