/** The views with a plot: the maps, two scores against each other, and before and after. */

import { computed } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { byName, captionsOf, categoriesOf, manifest, numbers } from "./data";
import { disagreement } from "./engine";
import { failing, filtered, orderBy, shown, split, timed } from "./filters";
import { Empty, Mark, Thumb } from "./gallery";
import { exporting } from "./dialogs";
import { colorBy, Scatter } from "./scatter";
import { axes, lasso, mapIndex, numeric, openPair, pair, sort, view } from "./state";
import { count, labelOf, number, visible } from "./text";
import { inkOf } from "./theme";

const LISTED = 50;

/** A list of pairs, each with what a view says about it. */
function Pairs({ title, rows, children }: { title: string; rows: ArrayLike<number>; children: (row: number) => ComponentChildren }) {
  return (
    <section class="pairs" aria-label={title}>
      <h3>{title}</h3>
      <ol>
        {Array.from(rows).slice(0, LISTED).map((row) => (
          <li key={row}>
            <button type="button" aria-current={pair.value === row} onClick={() => openPair(row)}>
              <Thumb row={row} size={96} />
              <span class="said"><span class="caption" dir="auto">{visible(captionsOf(row, 160)[0] ?? "")}</span>{children(row)}</span>
              <Mark row={row} />
            </button>
          </li>
        ))}
      </ol>
      {rows.length === 0 && <p class="soft">none</p>}
    </section>
  );
}

const value = (name: string, row: number) => number(numbers(name)?.[row], byName.get(name));

function Legend() {
  const by = colorBy(), { names } = split(by), info = byName.get(by ?? "");
  const rest = by === "mark" || Boolean(info && (info.missing || categoriesOf(info).length >= names.length));
  return names.length ? (
    <ul class="legend" aria-label={labelOf(by!)}>
      {names.slice(0, rest ? 6 : -1).map((name, k) => <li key={name}><i class="dot" style={{ background: `var(${inkOf(by, name, k)})` }} />{name}</li>)}
    </ul>
  ) : null;
}

export function MapView() {
  const map = manifest.maps[mapIndex.value];
  if (!map) return <p class="empty">This run has no map.</p>;
  const rows = shown.value ?? new Uint32Array(0);
  return (
    <div class="plots">
      <div class="plot-main">
        <div class="plot-bar">
          <div class="segments" role="group" aria-label="Map">
            {manifest.maps.map((one, k) => (
              <button type="button" key={one.label} aria-pressed={k === mapIndex.value} onClick={() => (mapIndex.value = k)}>{one.label}</button>
            ))}
          </div>
          <Legend />
          <span class="grow" />
          {lasso.value ? (
            <>
              <button type="button" class="primary" onClick={() => (view.value = "gallery")}>Show {count(rows.length)} in the gallery</button>
              <button type="button" onClick={() => (exporting.value = true)}>Export</button>
              <button type="button" onClick={() => (lasso.value = null)}>Clear lasso</button>
            </>
          ) : null}
        </div>
        <p class="note">
          {map.diagonal && "On the diagonal the model that trained on a pair aligns it no better than the model that did not: zero memorization. "}
          {byName.get(map.x)?.group === "map" && "A word names a dense region whose captions have it at least twice as often as all captions. "}
          Drag draws a lasso, the wheel zooms, Shift and drag moves, a double click shows all.
        </p>
        <Scatter x={map.x} y={map.y} diagonal={Boolean(map.diagonal)} />
      </div>
      <div class="lists">
        {rows.length ? (
          <Pairs title={`First ${Math.min(LISTED, rows.length)} by ${labelOf(sort.value.column)}`} rows={rows.subarray(0, LISTED)}>
            {(row) => <b>{value(sort.value.column, row)}</b>}
          </Pairs>
        ) : <Empty />}
      </div>
    </div>
  );
}

const compared = computed(() => {
  void filtered.value;
  const [first, second] = axes.value.map(numbers);
  return first && second ? timed("disagreement", () => disagreement(first, second, failing, LISTED)) : null;
});

function Axis({ place, label }: { place: 0 | 1; label: string }) {
  return (
    <label>
      {label}{" "}
      <select
        value={axes.value[place]}
        onChange={(event) => (axes.value = (place ? [axes.value[0], event.currentTarget.value] : [event.currentTarget.value, axes.value[1]]) as [string, string])}
      >
        {numeric().map((info) => <option key={info.name} value={info.name}>{info.label}</option>)}
      </select>
    </label>
  );
}

export function ScoresView() {
  const [first, second] = axes.value, found = compared.value;
  const both = (row: number) => <span class="soft">{value(first, row)} <span aria-hidden="true">·</span> {value(second, row)}</span>;
  return (
    <div class="plots">
      <div class="plot-main">
        <div class="plot-bar">
          <Axis place={0} label="Across" /><Axis place={1} label="Up" /><Legend />
          <span class="grow" />
          {found && found.count > 1 && <span>Rank correlation <b>{number(found.correlation)}</b> over {count(found.count)} shown pairs with both</span>}
        </div>
        <Scatter x={first} y={second} diagonal={false} />
      </div>
      {found && (
        <div class="lists two">
          <Pairs title={`High ${labelOf(first)}, low ${labelOf(second)}`} rows={found.above}>{both}</Pairs>
          <Pairs title={`Low ${labelOf(first)}, high ${labelOf(second)}`} rows={found.below}>{both}</Pairs>
        </div>
      )}
    </div>
  );
}

/** The shown pairs that rose and fell most. */
const changed = computed(() => {
  void filtered.value;
  const rose: number[] = [], fell: number[] = [], values = numbers(manifest.compare?.change);
  const order = values && orderBy(manifest.compare!.change, true);
  if (!order) return null;
  for (let k = 0; k < order.length && rose.length < LISTED && values[order[k]] > 0; k++) if (!failing[order[k]]) rose.push(order[k]);
  for (let k = order.length - 1; k >= 0 && fell.length < LISTED && !(values[order[k]] >= 0); k--) {
    if (!failing[order[k]] && values[order[k]] < 0) fell.push(order[k]);
  }
  return { rose, fell };
});

export function CompareView() {
  if (!manifest.compare) return <p class="empty">No second run is open. Start <code>clipmem view RUN --compare-with OTHER</code> to see what changed.</p>;
  const { title, change, pairs } = manifest.compare, [own, other] = pairs[0], found = changed.value;
  const sides = (row: number) => (
    <span class="soft">
      {value(other, row)} <span aria-label="to">→</span> {value(own, row)} <b class={found?.rose.includes(row) ? "up" : "down"}>{value(change, row)}</b>
    </span>
  );
  return (
    <div class="plots">
      <div class="plot-main">
        <div class="plot-bar">
          <span>{labelOf(own)} in {visible(title)} (before, across) and in {manifest.title} (after, up)</span>
          <Legend /><span class="grow" />
          <button type="button" onClick={() => ((sort.value = { column: change, descending: true }), (view.value = "gallery"))}>Gallery by change</button>
        </div>
        <p class="note">On the diagonal both runs give a pair the same score.</p>
        <Scatter x={other} y={own} diagonal labels={[`${labelOf(own)} in ${visible(title)}`, `${labelOf(own)} in ${manifest.title}`]} />
      </div>
      <div class="lists two">
        <Pairs title="Rose most" rows={found?.rose ?? []}>{sides}</Pairs>
        <Pairs title="Fell most" rows={found?.fell ?? []}>{sides}</Pairs>
      </div>
    </div>
  );
}
