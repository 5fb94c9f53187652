/** Histograms to brush and values to choose, each counted under all other filters. */

import { signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { byName, categoriesOf, type ColumnInfo, manifest } from "./data";
import { BINS } from "./engine";
import { type Counts, countsOf, totalsOf } from "./filters";
import { clearPicks, group, logarithmic, numeric, picks, ranges, setRange, short, togglePick } from "./state";
import { count, labelOf, number, visible } from "./text";
import { inkOf } from "./theme";

/** Draw counts as steps: a path from a base line to a top line, each in fractions of the height. */
function steps(base: number[], top: number[]): string {
  const y = (value: number) => (100 - 100 * value).toFixed(1);
  const upper = top.map((value, bin) => `${bin ? "L" : "M"}${bin} ${y(value)}H${bin + 1}`).join("");
  const lower = base.map((value, bin) => `L${bin + 1} ${y(value)}H${bin}`).reverse().join("");
  return `${upper}${lower}Z`;
}

/** Stack the groups of each bin by their shares; heights are square roots or logarithms of counts, so that small bins stay visible. */
function layers({ counts, size, groups }: Counts, most: number): string[] {
  const height = (total: number) => (logarithmic.value ? Math.log1p(total) / Math.log1p(most) : Math.sqrt(total / most));
  const all = Math.max(1, groups.length), totals = new Array<number>(size).fill(0), sums = [...totals];
  counts.forEach((count, k) => (totals[k % size] += count));
  const heights = () => sums.map((sum, bin) => (sum ? height(totals[bin]) * (sum / totals[bin]) : 0));
  return Array.from({ length: all }, (_, group) => {
    const base = heights();
    for (let bin = 0; bin < size; bin++) sums[bin] += counts[group * size + bin];
    return steps(base, heights());
  });
}

/** Read a typed end of a range: empty is no end, NaN is no number. */
function typed(text: string, none: number): number {
  const digits = text.trim().replace("−", "-"), value = Number(digits);
  if (!digits) return none;
  return /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(digits) && Number.isFinite(value) ? value : NaN;
}

/** Both ends of a range as numbers to type. */
function Ends({ info, range }: { info: ColumnInfo; range: [number, number] | undefined }) {
  const box = useRef<HTMLDivElement>(null), wrong = useSignal("");
  const fields = () => [...box.current!.querySelectorAll("input")];
  const text = (end: number) => (range && Number.isFinite(range[end]) ? short(range[end]) : "");
  const reset = () => {
    fields().forEach((field, end) => ((field.value = text(end)), field.removeAttribute("aria-invalid")));
    wrong.value = "";
  };
  useEffect(reset, [range]);
  const keys = (event: KeyboardEvent) => {
    if (event.key === "Escape") reset();
    if (event.key !== "Enter") return;
    const all = fields(); // an end that was not typed stays as exact as it is
    const [low, high] = [-Infinity, Infinity].map((none, end) => (range && all[end].value === text(end) ? range[end] : typed(all[end].value, none)));
    const bad = low !== low ? 0 : high !== high ? 1 : low > high ? (event.target === all[1] ? 1 : 0) : -1;
    all.forEach((field, end) => field.setAttribute("aria-invalid", String(end === bad)));
    if (low !== low || high !== high) wrong.value = `“${visible(all[bad].value)}” is not a number such as 0.5: not applied.`;
    else if (bad >= 0) wrong.value = `The lowest, ${short(low)}, is above the highest, ${short(high)}: not applied.`;
    else (wrong.value = ""), setRange(info.name, low === -Infinity && high === Infinity ? null : [low, high]);
  };
  const field = (end: string, hint: number) => (
    <input
      inputMode="decimal" aria-label={`${end} ${info.label}`} placeholder={number(hint, info)} title="Enter applies"
      autocomplete="off" maxLength={40} onKeyDown={keys}
    />
  );
  return (
    <>
      <div class="typed" ref={box}>{field("Lowest", info.min ?? 0)}<span>to</span>{field("Highest", info.max ?? 1)}</div>
      {wrong.value && <p class="warn" role="alert">{wrong}</p>}
    </>
  );
}

function Histogram({ info }: { info: ColumnInfo }) {
  const plot = useRef<HTMLDivElement>(null), pointed = useSignal(""); // drawn alone: what is pointed at counts nothing again
  const min = info.min ?? 0, max = info.max ?? 1, step = (max - min) / BINS || 1;
  const range = ranges.value[info.name];
  const counts = countsOf(info.name, "range"), totals = totalsOf(info.name);
  const low = range ? Math.max(0, Math.min(BINS - 1, Math.round((range[0] - min) / step))) : 0;
  const high = range ? Math.max(1, Math.min(BINS, Math.round((range[1] - min) / step))) : BINS;
  const set = (first: number, last: number) => {
    const [from, to] = first <= last ? [first, last] : [last, first];
    if (from === to) return;
    const whole = from <= 0 && to >= BINS;
    setRange(info.name, whole ? null : [from <= 0 ? -Infinity : min + from * step, to >= BINS ? Infinity : min + to * step]);
  };
  const brush = (event: PointerEvent) => {
    const box = plot.current!.getBoundingClientRect();
    const bin = (one: PointerEvent) => Math.max(0, Math.min(BINS, Math.round(((one.clientX - box.left) / box.width) * BINS)));
    const start = bin(event);
    const move = (next: PointerEvent) => set(start, bin(next));
    const target = plot.current!;
    target.setPointerCapture(event.pointerId);
    target.addEventListener("pointermove", move);
    target.addEventListener("pointerup", () => target.removeEventListener("pointermove", move), { once: true });
  };
  /** The values of a bin and how many pairs it has. */
  const sayBin = (bin: number): string => {
    let some = 0;
    for (let k = bin; counts && k < counts.counts.length; k += BINS) some += counts.counts[k];
    const all = totals?.[bin] ?? 0, ends = [bin, bin + 1].map((end) => number(min + end * step, info)).join(" to ");
    return `${ends}: ${count(some)}${some === all ? "" : ` of ${count(all)}`} ${all === 1 ? "pair" : "pairs"}`;
  };
  const point = (event: PointerEvent) => {
    const box = plot.current!.getBoundingClientRect();
    pointed.value = sayBin(Math.max(0, Math.min(BINS - 1, Math.floor(((event.clientX - box.left) / box.width) * BINS))));
  };
  const keys = (end: "low" | "high") => (event: KeyboardEvent) => {
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -6, PageUp: 6 }[event.key];
    if (event.key === "Delete" || event.key === "Backspace") setRange(info.name, null);
    else if (event.key === "Home") end === "low" ? set(0, high) : set(low, low + 1);
    else if (event.key === "End") end === "low" ? set(high - 1, high) : set(low, BINS);
    else if (by && end === "low") set(Math.max(0, Math.min(high - 1, low + by)), high);
    else if (by) set(low, Math.max(low + 1, Math.min(BINS, high + by)));
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const handle = (end: "low" | "high", bin: number) => (
    <span
      class={`handle ${end}`} role="slider" tabIndex={0} style={{ left: `${(100 * bin) / BINS}%` }} onKeyDown={keys(end)}
      aria-label={`${info.label}: ${end === "low" ? "lowest" : "highest"} shown`} aria-valuemin={min} aria-valuemax={max}
      aria-valuenow={min + bin * step} aria-valuetext={`${number(min + bin * step, info)}. ${sayBin(bin - Number(end === "high"))}`}
      onFocus={() => (pointed.value = sayBin(bin - Number(end === "high")))} onBlur={() => (pointed.value = "")}
    />
  );
  const most = totals ? totals.reduce((a, b) => Math.max(a, b), 1) : 1;
  useEffect(() => {
    const active = plot.current!.contains(document.activeElement) && document.activeElement!.classList;
    if (active) pointed.value = sayBin(active.contains("low") ? low : high - 1);
  }, [low, high, counts]);
  return (
    <section class="facet" aria-label={info.label}>
      <h3 title={info.about}>
        {info.label}
        {range && <button type="button" class="clear" onClick={() => setRange(info.name, null)} aria-label={`Clear ${info.label}`}>clear</button>}
      </h3>
      <div class="plot" ref={plot} onPointerDown={brush} onPointerMove={point} onPointerLeave={() => (pointed.value = "")} onDblClick={() => setRange(info.name, null)}>
        <svg viewBox={`0 0 ${BINS} 100`} preserveAspectRatio="none" role="img" aria-label={`Histogram. The highest bar is ${totals ? sayBin(totals.indexOf(most)) : "not loaded"}`}>
          {totals && <path class="all" d={layers({ counts: totals, size: BINS, groups: [] }, most)[0]} />}
          {counts && layers(counts, most).map((path, k) => <path key={k} class="bars" d={path} style={counts.groups.length ? { fill: `var(${inkOf(group.value, counts.groups[k], k)})` } : {}} />)}
        </svg>
        {range && <span class="shade" style={{ left: "0", width: `${(100 * low) / BINS}%` }} />}
        {range && <span class="shade" style={{ right: "0", width: `${100 - (100 * high) / BINS}%` }} />}
        {handle("low", low)}
        {handle("high", high)}
        <span class="most" aria-hidden="true">{count(most)}</span>
        <span class="pointed" aria-hidden="true">{pointed}</span>
      </div>
      <p class="ends"><span>{number(min, info)}</span><span>{number(max, info)}</span></p>
      <Ends info={info} range={range} />
    </section>
  );
}

function Choices({ name, about }: { name: string; about?: string }) {
  const counts = countsOf(name, "pick");
  const chosen = picks.value[name] ?? [], names = name === "mark" ? manifest.marks : categoriesOf(byName.get(name)!);
  const most = counts ? counts.counts.reduce((a, b) => Math.max(a, b), 1) : 1;
  return (
    <section class="facet" aria-label={labelOf(name)}>
      <h3 title={about}>
        {labelOf(name)}
        {chosen.length > 0 && <button type="button" class="clear" onClick={() => clearPicks(name)} aria-label={`Clear ${labelOf(name)}`}>clear</button>}
      </h3>
      <div class="choices" role="group" aria-label={labelOf(name)}>
        {names.map((value, code) => (
          <button
            key={value} type="button" role="checkbox" aria-checked={chosen.includes(value)} class="choice"
            onClick={() => togglePick(name, value)}
          >
            <i class={group.value === name ? "dot" : "dot plain"} style={group.value === name ? { background: `var(${inkOf(name, value, code)})` } : {}} />
            <span class="value">{value}</span>
            <span class="bar"><span style={{ width: `${(100 * (counts?.counts[code] ?? 0)) / most}%` }} /></span>
            <span class="count">{counts ? count(counts.counts[code]) : ""}</span>
          </button>
        ))}
      </div>
    </section>
  );
}

const TITLES: Record<string, string> = { score: "Scores", pair: "Pairs", compare: "Change", detector: "Detectors", part: "Parts" };
const unfolded = signal(new Set(["score", "pair", "compare"]));

function Group({ name }: { name: string }) {
  const columns = manifest.columns.filter((info) => info.group === name);
  const flags = columns.filter((info) => info.type === "category" || info.type === "bool").map((info) => info.name);
  if (name === "pair") flags.push("mark");
  const size = (one: string) => (one === "mark" ? manifest.marks.length : categoriesOf(byName.get(one)!).length);
  flags.sort((one, other) => size(one) - size(other)); // short lists first
  const errors = new Set(manifest.columns.map((info) => info.error));
  const drawn = numeric().filter((info) => info.group === name && !errors.has(info.name));
  if (!flags.length && !drawn.length) return null;
  const open = unfolded.value.has(name);
  const toggle = () => {
    const next = new Set(unfolded.value);
    if (!next.delete(name)) next.add(name);
    unfolded.value = next;
  };
  return (
    <div class="facet-group">
      <h2><button type="button" aria-expanded={open} onClick={toggle}>{TITLES[name] ?? name}</button></h2>
      {open && flags.map((one) => <Choices key={one} name={one} about={byName.get(one)?.about} />)}
      {open && drawn.map((info) => <Histogram key={info.name} info={info} />)}
    </div>
  );
}

export function Facets() {
  const flags = manifest.columns.filter((info) => info.type === "category" || info.type === "bool");
  return (
    <aside class="facets" aria-label="Filters">
      <label class="field">
        <span>Split histograms and map by</span>
        <select value={group.value ?? ""} onChange={(event) => (group.value = event.currentTarget.value || null)}>
          <option value="">nothing</option>
          {flags.map((info) => <option key={info.name} value={info.name}>{info.label}</option>)}
          <option value="mark">Mark</option>
        </select>
      </label>
      <label class="check">
        <input type="checkbox" checked={logarithmic.value} onChange={(event) => (logarithmic.value = event.currentTarget.checked)} /> Log scale of counts
      </label>
      {["score", "pair", "compare", "detector", "part"].map((name) => <Group key={name} name={name} />)}
    </aside>
  );
}
