/** The page: search, order, views and what is open. In a runtime without a document, the engine alone. */

import { render } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { IMAGE_GROUP, loadManifest, manifest } from "./data";
import { Dialogs, exporting } from "./dialogs";
import { DetailPanel } from "./detail";
import * as engine from "./engine";
import { Facets } from "./facets";
import { startFilters } from "./filters";
import { Gallery } from "./gallery";
import { startKeys } from "./keys";
import { startMarks } from "./marks";
import { startMeaning } from "./meaning";
import { CompareView, MapView, ScoresView } from "./plots";
import { ReviewView } from "./review";
import { help, keepAddress, meaning, numeric, opened, pair, query, reverse, sort, sortBy, view, type View } from "./state";
import { Status } from "./status";
import { startReview } from "./suspects";
import { Views } from "./views";

const VIEWS: [View, string][] = [["review", "Review"], ["gallery", "Gallery"], ["map", "Map"], ["scores", "Two scores"], ["compare", "Before and after"]];
const SEARCH_DELAY = 120; // ms after the last letter

function Search() {
  const field = useRef<HTMLInputElement>(null), timer = useRef(0), words = query.value;
  useEffect(() => {
    if (document.activeElement !== field.current) field.current!.value = words;
  }, [words]);
  return (
    <input
      id="search" type="search" ref={field} defaultValue={words} placeholder="Search captions: word -other -w, or images: ~ red car" aria-label="Search captions"
      title={'word: has it in any caption. "two words": has them in this order. -word: has it in none. -w: whole words only. ~ red car at night: the images most similar to these words first. /: go here'}
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
      <select id="sort" value={meaning.value ? "" : column} onChange={(event) => sortBy(event.currentTarget.value)}>
        {meaning.value && <option value="">similarity to the query</option>}
        {[...numeric(), ...manifest.columns.filter((info) => info.name === IMAGE_GROUP)].map((info) => <option key={info.name} value={info.name}>{info.label}</option>)}
      </select>
      <button type="button" onClick={reverse} disabled={Boolean(meaning.value)} title="Reverse the order (r)">
        {descending || meaning.value ? "↓ high first" : "↑ low first"}
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

const PANELS: Record<View, () => preact.JSX.Element> = { review: ReviewView, gallery: Gallery, map: MapView, scores: ScoresView, compare: CompareView };

function App() {
  const Panel = PANELS[view.value];
  return (
    <div class={`app${view.value === "review" ? " reviewing" : ""}${opened.value && pair.value !== null ? " with-detail" : ""}`}>
      <header class="top">
        <h1 title={manifest.title}><span>{manifest.title}</span></h1>
        {view.value !== "review" && <><Views /><Search /><Order /></>}
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
  startMeaning();
  startKeys();
  startReview();
  render(<App />, root);
}

if (typeof document === "undefined") (globalThis as Record<string, unknown>).clipmemEngine = engine;
else void start();
