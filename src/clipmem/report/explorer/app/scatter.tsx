/** Two columns against each other on a canvas, with zoom and a lasso, by pointer and by keys. */

import { useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { type Region, regions } from "./clusters";
import { byName, captionColumn, captionsOf, column, numbers, strings } from "./data";
import { draw, ticks } from "./draw";
import { type Box, nearestRow } from "./engine";
import { failing, filtered, split, timed } from "./filters";
import { dark, inkOf } from "./theme";
import { Thumb } from "./gallery";
import { group, lasso, openPair, pair } from "./state";
import { labelOf, number, visible } from "./text";

const LEFT = 58, BOTTOM = 44, MARGIN = 10, MOST_CORNERS = 48;

type Point = [number, number];

/** Return the whole range of both columns; with a diagonal, one range for both axes. */
function wholeBox(x: string, y: string, diagonal: boolean): Box {
  const bounds = [x, y].map((name) => [byName.get(name)?.min ?? 0, byName.get(name)?.max ?? 1]);
  if (diagonal) bounds.fill([Math.min(...bounds.map((one) => one[0])), Math.max(...bounds.map((one) => one[1]))]);
  const padded = bounds.map(([low, high]) => {
    const pad = 0.03 * (high - low) || 1;
    return [low - pad, high + pad];
  });
  return [...padded[0], ...padded[1]] as Box;
}

const named = new Map<string, Region[]>();

/** Return the named regions of a map of embeddings, once its columns and the captions are loaded; other plots have none. */
function regionsOf(x: string, y: string, box: Box): Region[] {
  const first = numbers(x), second = numbers(y), key = `${x} ${y}`;
  if (byName.get(x)?.group !== "map" || !first || !second || !column(captionColumn) || !strings(captionColumn)) return [];
  if (!named.has(key)) named.set(key, timed("regions", () => regions(first, second, box, (row) => captionsOf(row, 300)[0] ?? "")));
  return named.get(key)!;
}

/** What points are colored by: the roles, unless something else is chosen. */
export const colorBy = () => group.value ?? (byName.has("role") ? "role" : null);

export function Scatter({ x, y, diagonal, labels }: { x: string; y: string; diagonal: boolean; labels?: [string, string] }) {
  const frame = useRef<HTMLDivElement>(null), canvas = useRef<HTMLCanvasElement>(null);
  const size = useSignal<Point>([0, 0]), zoom = useSignal<{ of: string; box: Box } | null>(null);
  const path = useSignal<Point[]>([]), cross = useSignal<Point | null>(null), over = useSignal(-1);
  const whole = wholeBox(x, y, diagonal), box = zoom.value?.of === `${x} ${y}` ? zoom.value.box : whole;
  const [width, height] = size.value, [left, right, bottom, top] = box;
  const first = numbers(x), second = numbers(y), { codes, names } = split(colorBy());
  const [across, up] = labels ?? [labelOf(x), labelOf(y)], inks = names.map((name, k) => inkOf(colorBy(), name, k));
  const version = filtered.value, scheme = dark.value;

  useLayoutEffect(() => {
    const observer = new ResizeObserver(() => {
      const { clientWidth, clientHeight } = frame.current!;
      size.value = [Math.max(50, clientWidth - LEFT - MARGIN), Math.max(50, clientHeight - BOTTOM - MARGIN)];
    });
    observer.observe(frame.current!);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    if (!first || !second || !width) return;
    timed("map", () => draw(canvas.current!, { x: first, y: second, failing, groups: codes, groupCount: names.length, inks }, box, width, height));
  }, [first, second, codes, inks.join(), version, width, height, left, right, bottom, top, scheme]);

  const toPixel = ([px, py]: Point): Point => [((px - left) / (right - left)) * width, ((top - py) / (top - bottom)) * height];
  const toData = ([px, py]: Point): Point => [left + (px / width) * (right - left), top - (py / height) * (top - bottom)];
  const at = (event: MouseEvent): Point => {
    const place = canvas.current!.getBoundingClientRect();
    return [event.clientX - place.left, event.clientY - place.top];
  };
  const nearest = (pixel: Point): number => {
    if (!first || !second) return -1;
    const [px, py] = toData(pixel);
    return nearestRow(first, second, failing, px, py, (10 * (right - left)) / width, (10 * (top - bottom)) / height);
  };
  const finish = () => {
    const every = Math.max(1, Math.ceil(path.value.length / MOST_CORNERS));
    const points = path.value.filter((_, k) => k % every === 0).flatMap((one) => one.map((value) => Number(value.toPrecision(5))));
    if (points.length >= 6) lasso.value = { x, y, points };
    path.value = [];
  };
  const zoomBy = (factor: number, [px, py]: Point) => {
    const scaled = ([low, high]: Point, center: number): Point => [center + (low - center) * factor, center + (high - center) * factor];
    zoom.value = { of: `${x} ${y}`, box: [...scaled([left, right], px), ...scaled([bottom, top], py)] };
  };
  const pan = (dx: number, dy: number) => {
    const across = (dx * (right - left)) / width, up = (dy * (top - bottom)) / height;
    zoom.value = { of: `${x} ${y}`, box: [left - across, right - across, bottom + up, top + up] };
  };
  const down = (event: PointerEvent) => {
    const start = at(event);
    canvas.current!.setPointerCapture(event.pointerId);
    frame.current!.focus();
    let last = start, far = false;
    const panning = event.shiftKey || event.button === 1;
    if (!panning) path.value = [toData(start)];
    const move = (next: PointerEvent) => {
      const here = at(next);
      if (Math.hypot(here[0] - last[0], here[1] - last[1]) < 4) return;
      far = true;
      if (panning) pan(here[0] - last[0], here[1] - last[1]);
      else path.value = [...path.value, toData(here)];
      last = here;
    };
    const up = () => {
      canvas.current!.removeEventListener("pointermove", move);
      if (far) return panning ? undefined : finish();
      path.value = [];
      const row = nearest(start);
      if (row >= 0) openPair(row);
      else lasso.value = null;
    };
    canvas.current!.addEventListener("pointermove", move);
    canvas.current!.addEventListener("pointerup", up, { once: true });
  };
  const keys = (event: KeyboardEvent) => {
    const by = event.shiftKey ? 40 : 8, place = cross.value ?? toData([width / 2, height / 2]);
    const step = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, -by], ArrowDown: [0, by] }[event.key];
    if (step) {
      const [px, py] = toPixel(place);
      cross.value = toData([Math.max(0, Math.min(width, px + step[0])), Math.max(0, Math.min(height, py + step[1]))]);
    } else if (event.key === " ") path.value = [...path.value, place];
    else if (event.key === "Enter" && path.value.length >= 3) finish();
    else if (event.key === "Enter" && cross.value && nearest(toPixel(place)) >= 0) openPair(nearest(toPixel(place)));
    else if (event.key === "+" || event.key === "=") zoomBy(0.7, place);
    else if (event.key === "-") zoomBy(1 / 0.7, place);
    else if (event.key === "0") zoom.value = null;
    else if (event.key === "Escape" && (path.value.length || lasso.value)) (path.value = []), (lasso.value = null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const line = (points: Point[]) => points.map((one) => toPixel(one).map((value) => value.toFixed(1)).join(",")).join(" ");
  const marked = (row: number | null) =>
    row !== null && row >= 0 && first && second && first[row] === first[row] && second[row] === second[row] ? toPixel([first[row], second[row]]) : null;
  const ring = marked(pair.value), hover = marked(over.value), cursor = cross.value && toPixel(cross.value);
  const own = lasso.value?.x === x && lasso.value.y === y ? lasso.value.points : [];
  const drawn = own.flatMap((value, k) => (k % 2 ? [[own[k - 1], value] as Point] : []));
  const areas = regionsOf(x, y, whole), words = areas.map(({ word }) => visible(word));
  return (
    <div
      class="scatter" ref={frame} tabIndex={0} role="application" onKeyDown={keys}
      aria-label={`${up} against ${across}. Arrows move the cross, Space sets a corner of the lasso, Enter closes it or opens the pair.${words.length ? ` Named regions: ${words.join(", ")}.` : ""}`}
    >
      <canvas
        ref={canvas} style={{ left: `${LEFT}px`, top: `${MARGIN}px`, width: `${width}px`, height: `${height}px` }}
        onPointerDown={down} onPointerLeave={() => (over.value = -1)} onDblClick={() => (zoom.value = null)}
        onPointerMove={(event) => (over.value = event.buttons ? -1 : nearest(at(event)))}
        onWheel={(event) => (event.preventDefault(), zoomBy(event.deltaY > 0 ? 1.15 : 1 / 1.15, toData(at(event))))}
      />
      <svg width={width + LEFT + MARGIN} height={height + BOTTOM + MARGIN} aria-hidden="true">
        <g transform={`translate(${LEFT} ${MARGIN})`}>
          <rect class="border" width={width} height={height} />
          {ticks(left, right, width / 90).map((value) => {
            const [px] = toPixel([value, 0]);
            return <g key={value}><line class="tick" x1={px} x2={px} y1={height} y2={height + 4} /><text x={px} y={height + 17} text-anchor="middle">{tickText(value)}</text></g>;
          })}
          {ticks(bottom, top, height / 60).map((value) => {
            const [, py] = toPixel([0, value]);
            return <g key={value}><line class="tick" x1="-4" x2="0" y1={py} y2={py} /><text x="-8" y={py + 4} text-anchor="end">{tickText(value)}</text></g>;
          })}
          <text class="axis-label" x={width / 2} y={height + 36} text-anchor="middle">{across}</text>
          <text class="axis-label" transform={`translate(-44 ${height / 2}) rotate(-90)`} text-anchor="middle">{up}</text>
          <svg width={width} height={height}>
            {diagonal && <line class="diagonal" {...ends(toPixel([Math.max(left, bottom), Math.max(left, bottom)]), toPixel([Math.min(right, top), Math.min(right, top)]))} />}
            {areas.map((region, k) => {
              const [px, py] = toPixel([region.x, region.y]);
              return <text key={region.word} class="region" x={px} y={py} text-anchor="middle">{words[k]}</text>;
            })}
            {drawn.length > 0 && <polygon class="lasso" points={line(drawn)} />}
            {path.value.length > 0 && <polyline class="lasso" points={line(path.value)} />}
            {hover && <circle class="ring" cx={hover[0]} cy={hover[1]} r="5" />}
            {ring && <circle class="ring" cx={ring[0]} cy={ring[1]} r="8" />}
            {cursor && <path class="cross" d={`M${cursor[0] - 9} ${cursor[1]}h18M${cursor[0]} ${cursor[1] - 9}v18`} />}
          </svg>
        </g>
      </svg>
      {hover && (
        <div class="tip" style={{ left: `${Math.min(hover[0] + LEFT + 14, width - 150)}px`, top: `${Math.min(hover[1] + 20, height - 120)}px` }}>
          <Thumb row={over.value} size={96} />
          <span>{visible(captionsOf(over.value, 120)[0] ?? "")}</span>
          <span class="soft">{[x, y].map((name) => number(column(name)?.numbers?.[over.value])).join(", ")}</span>
        </div>
      )}
    </div>
  );
}

const tickText = (value: number) => String(Number(value.toPrecision(6))).replace("-", "−");
const ends = ([x1, y1]: Point, [x2, y2]: Point) => ({ x1, y1, x2, y2 });
