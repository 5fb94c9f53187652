/** Draws points on a canvas: as dots where they are few, as density where they are many. No GPU is needed. */

import { type Box, type Codes, density, type Numbers } from "./engine";

const FEW = 20000, CELL = 2;

export interface Points {
  x: Numbers;
  y: Numbers;
  failing: Uint32Array;
  groups: Codes | null;
  groupCount: number;
  inks: string[]; // CSS variables of the groups
}

const SHARED = "--shared", LIGHT = 0.25; // most pairs are shared: they are light, and behind the others

const css = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const rgb = (hex: string) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

/** Return the colors of hidden points and of each group. */
const colors = ({ groups, inks }: Points) => ({ hidden: css("--dots"), shown: groups ? inks.map(css) : [css("--accent")] });

function drawDots(context: CanvasRenderingContext2D, points: Points, box: Box, width: number, height: number): void {
  const { x, y, failing, groups, groupCount, inks } = points;
  const { hidden, shown } = colors(points), [left, right, bottom, top] = box;
  const light = (layer: number) => groups !== null && inks[layer - 1] === SHARED;
  const radius = x.length > 4000 ? 2 : 3;
  const layerOf = (row: number) => (failing[row] ? 0 : groups ? Math.min(groups[row], groupCount - 1) + 1 : 1);
  const sizes = new Uint32Array(shown.length + 1);
  for (let row = 0; row < x.length; row++) sizes[layerOf(row)]++;
  const layers = Array.from(shown, (_, k) => k + 1)
    .sort((one, other) => Number(light(other)) - Number(light(one)) || sizes[other] - sizes[one]); // small ones on top
  for (const layer of [0, ...layers]) {
    context.fillStyle = layer ? shown[layer - 1] : hidden;
    context.globalAlpha = light(layer) ? LIGHT : layer ? 0.7 : 0.55;
    context.beginPath();
    for (let row = 0; row < x.length; row++) {
      if (layerOf(row) !== layer || !(x[row] >= left && x[row] <= right && y[row] >= bottom && y[row] <= top)) continue;
      const px = ((x[row] - left) / (right - left)) * width, py = ((top - y[row]) / (top - bottom)) * height;
      context.moveTo(px + radius, py);
      context.arc(px, py, radius, 0, 7);
    }
    context.fill();
  }
  context.globalAlpha = 1;
}

function drawDensity(context: CanvasRenderingContext2D, points: Points, box: Box, width: number, height: number): void {
  const columns = Math.max(1, Math.floor(width / CELL)), lines = Math.max(1, Math.floor(height / CELL));
  const cells = columns * lines, groups = points.groups ? points.groupCount : 1;
  const counts = density(points.x, points.y, points.failing, box, columns, lines, points.groups, groups);
  const { hidden, shown } = colors(points), pale = rgb(hidden), inks = shown.map(rgb);
  const weights = shown.map((_, k) => (points.groups && points.inks[k] === SHARED ? LIGHT / 4 : 1));
  const sums = new Float32Array(cells);
  let most = 1, mostHidden = 1;
  for (let cell = 0; cell < cells; cell++) {
    for (let layer = 1; layer <= groups; layer++) sums[cell] += weights[layer - 1] * counts[layer * cells + cell];
    most = Math.max(most, sums[cell]);
    mostHidden = Math.max(mostHidden, counts[cell]);
  }
  const image = context.createImageData(columns, lines), data = image.data;
  for (let cell = 0; cell < cells; cell++) {
    const sum = sums[cell], at = 4 * cell;
    if (sum) {
      for (let channel = 0; channel < 3; channel++) {
        let value = 0;
        for (let layer = 0; layer < groups; layer++) value += inks[layer][channel] * weights[layer] * counts[(layer + 1) * cells + cell];
        data[at + channel] = value / sum;
      }
      data[at + 3] = 70 + (185 * Math.log1p(sum)) / Math.log1p(most);
    } else if (counts[cell]) {
      data.set(pale, at);
      data[at + 3] = 40 + (150 * Math.log1p(counts[cell])) / Math.log1p(mostHidden);
    }
  }
  const small = new OffscreenCanvas(columns, lines);
  small.getContext("2d")!.putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, columns * CELL, lines * CELL);
}

export function draw(canvas: HTMLCanvasElement, points: Points, box: Box, width: number, height: number): void {
  const ratio = Math.min(2, devicePixelRatio || 1);
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const context = canvas.getContext("2d")!;
  context.scale(ratio, ratio);
  (points.x.length <= FEW ? drawDots : drawDensity)(context, points, box, width, height);
}

/** Return about `wanted` round numbers from low to high. */
export function ticks(low: number, high: number, wanted: number): number[] {
  const rough = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough) ?? rough;
  const found: number[] = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) found.push(k * step);
  return found;
}
