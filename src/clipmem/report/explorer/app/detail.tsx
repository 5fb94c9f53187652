/** One pair: its image, all captions, scores, alignment by seed, parts, detectors and neighbors. */

import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { byName, captionColumn, captionsOf, column, type Detail, detail, IMAGE_GROUP, manifest, nearest, numbers, problem, thumbnail, uidOf } from "./data";
import { MISSING } from "./engine";
import { beyondFloor, categoryOf, errorOf, floorOf, floorTitle, GLYPHS, Highlighted, Mark, moveTo, position } from "./gallery";
import { marking } from "./keys";
import { captionOf, markOf, noteOf, setMark } from "./marks";
import { similarityOf } from "./meaning";
import { Neighbors } from "./neighbors";
import { enlarged, numeric, opened, showSame, toNeighbors, visitPair } from "./state";
import { number, visible } from "./text";

const SIDES = ["f", "g"];

/** Alignment under f and g for each seed, with the noise floor around the mean of g. */
function Seeds({ seeds }: { seeds: Detail["seeds"] }) {
  const info = byName.get("clipmem"), floor = manifest.noise_floor ?? null;
  const all = seeds.flatMap((one) => [one.f, one.g]);
  const mean = seeds.reduce((sum, one) => sum + one.g, 0) / seeds.length;
  if (floor !== null) all.push(mean - floor, mean + floor);
  const low = Math.min(0, ...all), high = Math.max(0, ...all), pad = 0.04 * (high - low) || 0.1;
  const x = (value: number) => 44 + (396 * (value - low + pad)) / (high - low + 2 * pad);
  const height = 26 * seeds.length + 26;
  return (
    <figure>
      <svg class="seeds" viewBox={`0 0 450 ${height}`} role="img" aria-label="Alignment under f and g by seed">
        {floor !== null && <rect class="floor" x={x(mean - floor)} width={x(mean + floor) - x(mean - floor)} y="0" height={height - 24} />}
        <line class="axis" x1={x(0)} x2={x(0)} y1="0" y2={height - 22} />
        <text x={x(0)} y={height - 8} text-anchor="middle">0</text>
        {seeds.map(({ seed, f, g }, k) => (
          <g key={seed}>
            <text x="0" y={26 * k + 18}>seed {seed}</text>
            <line class="link" x1={x(g)} x2={x(f)} y1={26 * k + 14} y2={26 * k + 14} />
            <rect class="side-g" x={x(g) - 5} y={26 * k + 9} width="10" height="10" />
            <circle class="side-f" cx={x(f)} cy={26 * k + 14} r="6" />
          </g>
        ))}
      </svg>
      <figcaption>
        <span class="side-f">●</span> f trained on the pair, <span class="side-g">■</span> g did not.
        {floor !== null && ` Band: noise floor, ±${number(floor, { ...info!, min: 0 })} around the mean of g.`}
      </figcaption>
      <table class="numbers">
        <thead><tr><th scope="col">Seed</th><th scope="col">trained on it</th><th scope="col">not</th><th scope="col">difference</th></tr></thead>
        <tbody>
          {seeds.map(({ seed, f, g }) => (
            <tr key={seed}><th scope="row">{seed}</th><td>{number(f)}</td><td>{number(g)}</td><td><b>{number(f - g)}</b></td></tr>
          ))}
        </tbody>
      </table>
    </figure>
  );
}

function Parts({ parts }: { parts: NonNullable<Detail["parts"]> }) {
  const sides = Object.keys(parts), names = [...new Set(sides.flatMap((side) => Object.keys(parts[side])))];
  return (
    <section>
      <h3>Parts of the alignment</h3>
      <table class="numbers">
        <thead><tr><th scope="col">Part</th>{sides.map((side) => <th scope="col" key={side}>{side}</th>)}</tr></thead>
        <tbody>
          {names.map((name) => (
            <tr key={name}><th scope="row">{name.replaceAll("_", " ")}</th>{sides.map((side) => <td key={side}>{number(parts[side][name])}</td>)}</tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function Scores({ row }: { row: number }) {
  const errors = new Set(manifest.columns.map((info) => info.error));
  const shown = numeric().filter((info) => ["score", "compare"].includes(info.group) && !errors.has(info.name));
  const pairs = manifest.compare?.pairs ?? [], others = new Set(pairs.map(([, other]) => other));
  return (
    <section>
      <h3>Scores</h3>
      <table class="numbers">
        {pairs.length > 0 && <thead><tr><td /><th scope="col">{manifest.title}</th><th scope="col">{manifest.compare!.title}</th></tr></thead>}
        <tbody>
          {similarityOf(row) && <tr><th scope="row">Similarity to the query</th><td><b>{similarityOf(row)}</b></td></tr>}
          {shown.filter((info) => !others.has(info.name)).map((info) => {
            const other = pairs.find(([one]) => one === info.name)?.[1];
            return (
              <tr key={info.name}>
                <th scope="row" title={info.about}>{info.label}</th>
                <td><b>{number(numbers(info.name)?.[row], info)}</b><span class="error" title={floorOf(info) && floorTitle()}> {[errorOf(row, info) && `${errorOf(row, info)} over seeds`, beyondFloor(row, info), floorOf(info)].filter(Boolean).join(", ")}</span></td>
                {pairs.length > 0 && <td>{other && number(numbers(other)?.[row], byName.get(other))}</td>}
              </tr>
            );
          })}
        </tbody>
      </table>
    </section>
  );
}

function Detectors({ detectors }: { detectors: Detail["detectors"] }) {
  return (
    <section>
      <h3>Detectors of mismatched captions</h3>
      <ul class="detectors">
        {detectors.map((one) => (
          <li key={one.name}>
            <b>{one.label}</b> <span class="soft">{number(one.score)}{one.rank !== null && `, rank ${one.rank.toLocaleString("en-US")}`}</span>
            {one.reason && <p dir="auto">{visible(one.reason)}</p>}
          </li>
        ))}
      </ul>
    </section>
  );
}

function Captions({ row, found }: { row: number; found: Detail | null }) {
  const captions = found?.captions ?? captionsOf(row, 4000).map((text) => ({ text, trained: true }));
  const mixed = captions.some((one) => !one.trained);
  return (
    <ul class="captions" tabIndex={0} aria-label="Captions">
      {captions.map((one, k) => (
        <li key={k} dir="auto" class={one.trained ? "" : "untrained"}>
          <Highlighted text={visible(one.text.length > 4000 ? `${one.text.slice(0, 4000)}… (${one.text.length.toLocaleString("en-US")} characters)` : one.text)} />
          {mixed && <span class="tag">{one.trained ? "trained" : "not trained"}</span>}
        </li>
      ))}
    </ul>
  );
}

function Facts({ row, found }: { row: number; found: Detail | null }) {
  const flags = manifest.columns.filter((info) => info.type === "category" || info.type === "bool");
  const facts = flags.map((info) => [info.label, categoryOf(info.name, row)?.value] as const).filter(([, value]) => value);
  return (
    <dl class="facts">
      {facts.map(([label, value]) => <div key={label}><dt>{label}</dt><dd>{value}</dd></div>)}
      {found?.caption_from && <div><dt>Caption taken from</dt><dd class="mono">{visible(found.caption_from)}</dd></div>}
      {found?.source && <div><dt>Source</dt><dd class="mono">{visible(found.source)}</dd></div>}
      {found?.credit && <div><dt>Credit</dt><dd>{visible(found.credit)}</dd></div>}
      <div><dt>uid</dt><dd class="mono">{visible(uidOf(row))}</dd></div>
    </dl>
  );
}

/** Count the rows with the value of a row; 0 where it is missing. */
function countSame(values: Int32Array | null | undefined, row: number): number {
  if (!values || values[row] === MISSING) return 0;
  const value = values[row];
  let total = 0;
  for (let k = 0; k < values.length; k++) if (values[k] === value) total++;
  return total;
}

function Same({ row }: { row: number }) {
  const captions = countSame(column(captionColumn)?.codes as Int32Array | undefined, row);
  const images = countSame(numbers(IMAGE_GROUP) as Int32Array | null, row);
  const text = (total: number, what: string) =>
    total > 1 ? `${total.toLocaleString("en-US")} pairs have this ${what}` : `No other pair has this ${what}`;
  return (
    <p class="same">
      <button type="button" disabled={captions < 2} onClick={() => showSame("caption", row)}>{text(captions, "caption")} <kbd>c</kbd></button>
      {images > 0 && <button type="button" disabled={images < 2} onClick={() => showSame("image", row)}>{text(images, "image")} <kbd>i</kbd></button>}
    </p>
  );
}

function Marking({ row, found }: { row: number; found: Detail | null }) {
  const mark = markOf(row);
  return (
    <div class="marking" role="group" aria-label="Mark this pair">
      {manifest.marks.map((one) => (
        <button type="button" key={one} aria-pressed={mark === one} class={`mark-${one}`} onClick={() => marking(one)}>
          <span aria-hidden="true">{GLYPHS[one] ?? "•"}</span> {one} <kbd>{one[0]}</kbd>
        </button>
      ))}
      {mark && (
        <input
          key={row} type="text" placeholder="Why? Enter saves" aria-label="Reason of the mark" defaultValue={found?.note ?? noteOf(row) ?? ""}
          onKeyDown={(event) => {
            if (event.key !== "Enter") return;
            setMark(row, mark, { note: event.currentTarget.value, caption: captionOf(row) });
            if (found) found.note = event.currentTarget.value;
            event.currentTarget.blur();
          }}
        />
      )}
    </div>
  );
}

export function DetailPanel({ row }: { row: number }) {
  const found = detail(row), panel = useRef<HTMLElement>(null), place = position.value;
  useLayoutEffect(() => panel.current!.scrollTo(0, 0), [row]);
  const ready = toNeighbors.value && (problem.value || ((found || !manifest.details) && (!manifest.neighbors || nearest(row))));
  useEffect(() => {
    if (!ready) return;
    const section = document.getElementById("neighbors");
    section?.scrollIntoView();
    section?.focus({ preventScroll: true });
    toNeighbors.value = false;
  }, [ready]);
  const seeds = found?.seeds.filter((one) => SIDES.every((side) => side in one)) ?? [];
  return (
    <aside class="detail" ref={panel} aria-label="Pair" tabIndex={-1}>
      <header>
        <button type="button" onClick={() => moveTo(place - 1)} disabled={place < 1} aria-label="Previous pair">←</button>
        <button type="button" onClick={() => moveTo(place + 1)} aria-label="Next pair">→</button>
        <Mark row={row} />
        <span class="grow" />
        <button type="button" onClick={() => (opened.value = false)}>Close <kbd>Esc</kbd></button>
      </header>
      <div class="detail-top">
        {manifest.thumbnails
          ? <button type="button" class="mat" onClick={() => (enlarged.value = true)} title="Enlarge (Enter)">
              <img key={row} src={thumbnail(row, 1024)} alt={captionsOf(row, 200)[0] || "image"} onError={(event) => event.currentTarget.parentElement!.classList.add("none")} />
            </button>
          : <span class="mat">no image</span>}
        <div><Captions row={row} found={found} /><Same row={row} /></div>
      </div>
      <Marking row={row} found={found} />
      <Scores row={row} />
      {seeds.length > 0 && <section><h3>Alignment A by seed</h3><Seeds seeds={seeds} /></section>}
      {found?.parts && <Parts parts={found.parts} />}
      {found && found.detectors.length > 0 && <Detectors detectors={found.detectors} />}
      {manifest.neighbors && <Neighbors row={row} open={visitPair} />}
      <Facts row={row} found={found} />
    </aside>
  );
}
