/** The page: search, order, views and what is open. In a runtime without a document, the engine alone. */

import { render } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { byName, live, loadManifest, manifest, problem } from "./data";
import { Dialogs, exporting } from "./dialogs";
import { DetailPanel } from "./detail";
import * as engine from "./engine";
import { Facets } from "./facets";
import { shown, startFilters } from "./filters";
import { floorOf, Gallery, placeText } from "./gallery";
import { startKeys } from "./keys";
import { elsewhere, markedRows, marksChanged, refusal, startMarks, unsaved } from "./marks";
import { CompareView, MapView, ScoresView } from "./plots";
import { Progress, ReviewView } from "./review";
import { clearFilters, filtering, help, keepAddress, numeric, opened, pair, query, same, sort, sortBy, view, type View } from "./state";
import { startReview } from "./suspects";
import { count, visible } from "./text";

const VIEWS: [View, string][] = [["review", "Review"], ["gallery", "Gallery"], ["map", "Map"], ["scores", "Two scores"], ["compare", "Before and after"]];
const SEARCH_DELAY = 120; // ms after the last letter

function Search() {
  const field = useRef<HTMLInputElement>(null), timer = useRef(0), words = query.value;
  useEffect(() => {
    if (document.activeElement !== field.current) field.current!.value = words;
  }, [words]);
  return (
    <input
      id="search" type="search" ref={field} defaultValue={words} placeholder="Search captions: word -other" aria-label="Search captions"
      autocomplete="off" spellcheck={false}
      onInput={(event) => {
        const text = event.currentTarget.value;
        clearTimeout(timer.current);
        timer.current = window.setTimeout(() => (query.value = text), SEARCH_DELAY);
      }}
    />
  );
}

function Order() {
  const { column, descending } = sort.value;
  return (
    <span class="order">
      <label for="sort">Sort</label>
      <select id="sort" value={column} onChange={(event) => sortBy(event.currentTarget.value)}>
        {numeric().map((info) => <option key={info.name} value={info.name}>{info.label}</option>)}
      </select>
      <button
        type="button" onClick={() => (sort.value = { column, descending: !descending })} title="Reverse the order (r)"
      >
        {descending ? "↓ high first" : "↑ low first"}
      </button>
    </span>
  );
}

function Tabs() {
  const offered = VIEWS.filter(([name]) => (name !== "compare" || manifest.compare || view.value === name) && (name !== "review" || manifest.review));
  const turn = (event: KeyboardEvent) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    const place = offered.findIndex(([name]) => name === view.value);
    view.value = offered[(place + by + offered.length) % offered.length][0];
    requestAnimationFrame(() => document.querySelector<HTMLElement>("[role=tab][aria-selected=true]")?.focus());
  };
  return (
    <div role="tablist" aria-label="View" onKeyDown={turn}>
      {offered.map(([name, label]) => (
        <button
          type="button" key={name} role="tab" id={`tab-${name}`} aria-selected={view.value === name} aria-controls="view"
          tabIndex={view.value === name ? 0 : -1} onClick={() => (view.value = name)}
        >
          {label}
        </button>
      ))}
    </div>
  );
}

function Status() {
  void marksChanged.value;
  const total = shown.value?.length, marked = markedRows().length, floor = floorOf(byName.get(sort.value.column));
  return (
    <div class="status">
      {view.value === "review" ? <Progress /> : <span role="status">
        {placeText()}<b>{total === undefined ? "…" : count(total)}</b> of {count(manifest.rows)} shown
        {marked > 0 && <>, <b>{count(marked)}</b> marked</>}{floor && `; ${floor}`}
      </span>}
      {elsewhere.value > 0 && <span class="chip">{count(elsewhere.value)} {elsewhere.value === 1 ? "mark" : "marks"} changed in another window; the last mark of a pair counts <button type="button" aria-label="Dismiss" onClick={() => (elsewhere.value = 0)}>×</button></span>}
      {same.value && <span class="chip">same {same.value.by} as one pair <button type="button" aria-label="Clear" onClick={() => (same.value = null)}>×</button></span>}
      {filtering() && <button type="button" class="quiet" onClick={clearFilters}>Clear filters <kbd>x</kbd></button>}
      {problem.value && <span class="warn" role="alert">Not loaded: {problem.value.text} <button type="button" aria-label="Dismiss" onClick={() => (problem.value = null)}>×</button></span>}
      {unsaved.value > 0 && <span class="warn" role="alert">{unsaved.value === 1 ? "1 mark" : `${count(unsaved.value)} marks`} not saved yet, but kept in this browser: {visible(refusal.value) || "the server does not answer."}</span>}
      {live && manifest.marks_file === null && marked > 0 && <span class="warn" role="alert">The folder cannot be written: marks stay in this browser.</span>}
    </div>
  );
}

const PANELS: Record<View, () => preact.JSX.Element> = { review: ReviewView, gallery: Gallery, map: MapView, scores: ScoresView, compare: CompareView };

function App() {
  const Panel = PANELS[view.value];
  return (
    <div class={`app${view.value === "review" ? " reviewing" : ""}${opened.value && pair.value !== null ? " with-detail" : ""}`}>
      <header class="top">
        <h1 title={manifest.title}><span>{manifest.title}</span></h1>
        {view.value !== "review" && <><Search /><Order /></>}
        <Tabs />
        <span class="grow" />
        <button type="button" onClick={() => (exporting.value = true)}>Export <kbd>e</kbd></button>
        <button type="button" onClick={() => (help.value = true)}>Keys <kbd>?</kbd></button>
      </header>
      {view.value !== "review" && <Facets />}
      <main>
        <Status />
        <div id="view" role="tabpanel" aria-labelledby={`tab-${view.value}`}><Panel /></div>
      </main>
      {opened.value && pair.value !== null && <DetailPanel row={pair.value} />}
      <Dialogs />
    </div>
  );
}

function Failure({ text }: { text: string }) {
  return <div class="failure" role="alert"><h1>This view cannot be shown</h1><p>{text}</p></div>;
}

async function start(): Promise<void> {
  const root = document.getElementById("app")!;
  try {
    await loadManifest();
  } catch (error) {
    return render(<Failure text={(error as Error).message} />, root);
  }
  document.title = `${manifest.title} · clipmem`;
  keepAddress();
  startMarks();
  startFilters();
  startKeys();
  startReview();
  render(<App />, root);
}

if (typeof document === "undefined") (globalThis as Record<string, unknown>).clipmemEngine = engine;
else void start();
