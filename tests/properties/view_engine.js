// Runs the engine of the page: node view_engine.js app.js; a request a line on stdin, an answer a line on stdout.
"use strict";
const fs = require("fs");
const readline = require("readline");
require(fs.realpathSync(process.argv[2]));
const engine = globalThis.clipmemEngine;

const numbers = (type, values) =>
  type === "i32" ? Int32Array.from(values, (v) => (v === null ? engine.MISSING : v)) : Float32Array.from(values, (v) => (v === null ? NaN : v));

const tasks = {
  sort: ({ type, values, descending }) => engine.sortedRows(numbers(type, values), descending),
  search: ({ texts, query }) => engine.search(new engine.Strings(new TextEncoder().encode(texts.join("\0"))), query),
  texts: ({ texts }) => {
    const strings = new engine.Strings(new TextEncoder().encode(texts.join("\0")));
    return texts.map((_, code) => strings.text(code));
  },
  shown: ({ type, values, low, high, codes, allowed, texts, captions, query, sort, descending }) => {
    const failing = new Uint32Array(values.length), column = numbers(type, values);
    const strings = new engine.Strings(new TextEncoder().encode(texts.join("\0")));
    engine.failRange(column, -Infinity, Infinity, failing, 31);
    engine.failCodes(Uint8Array.from(codes), new Uint8Array(256), failing, 5);
    engine.failRange(column, low, high, failing, 31);
    engine.failCodes(Uint8Array.from(codes), Uint8Array.from({ length: 256 }, (_, k) => allowed.includes(k)), failing, 5);
    engine.failCodes(Int32Array.from(captions), engine.search(strings, query), failing, 0);
    const bins = Uint8Array.from(codes, (code) => code % 7), groups = Uint8Array.from(codes);
    const counts = engine.histogram(bins, 7, failing, 1 << 5, groups, 3);
    const rows = engine.shownRows(engine.sortedRows(numbers("f32", sort), descending), failing);
    engine.clearBit(failing, 31);
    return { rows: [...rows], counts: [...counts], after: [...failing] };
  },
  evidence: ({ caption, nearest, all }) => engine.evidence(caption, nearest, engine.commonWords(all)),
  polygon: ({ x, y, polygon }) => {
    const failing = new Uint32Array(x.length);
    engine.failPolygon(numbers("f32", x), numbers("f32", y), polygon, failing, 3);
    return failing;
  },
  disagreement: ({ a, b, hidden, limit }) => {
    const found = engine.disagreement(numbers("f32", a), numbers("f32", b), Uint32Array.from(hidden), limit);
    return { ...found, above: [...found.above], below: [...found.below] };
  },
  density: ({ x, y, hidden, box, width, height, groups }) =>
    engine.density(numbers("f32", x), numbers("f32", y), Uint32Array.from(hidden), box, width, height, Uint8Array.from(groups), 3),
  nearest: ({ x, y, hidden, at }) => engine.nearestRow(numbers("f32", x), numbers("f32", y), Uint32Array.from(hidden), ...at),
  tokens: ({ text }) => engine.tokens(text),
  similarities: ({ codes, scales, query }) => {
    const products = engine.similarities(Int8Array.from(codes), Float32Array.from(scales), Float32Array.from(query));
    return Array.from(products, (value) => (Number.isNaN(value) ? null : value));
  },
  binned: ({ type, values, min, max }) => engine.binned(numbers(type, values), min, max),
};

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const { task, ...given } = JSON.parse(line);
  const answer = tasks[task](given);
  process.stdout.write(JSON.stringify(ArrayBuffer.isView(answer) ? [...answer] : answer) + "\n");
});
