/** Search by meaning: `~ words` puts the pairs first whose images are most similar to the words. */

import { computed, effect, signal } from "@preact/signals";
import { live, manifest, similaritiesTo, wordVectors } from "./data";
import { similarities, sortedRows, tokens } from "./engine";
import { meaning } from "./state";

interface Answer {
  text: string;
  values: Float32Array | null; // NaN for pairs without embeddings
  unknown: string[]; // words that an export has no vectors of
  problem: string;
}
const LONGEST = 500; // characters, as on the server
const DELAY = 300; // ms after the last letter: an answer reads all embeddings
const MINUS = "\u2212";

/** The last answer; another one takes its place once it is there. */
const answer = signal<Answer | null>(null);
/** The text whose similarities order the pairs, or null. */
export const ordering = computed(() => (answer.value?.values ? answer.value.text : null));
/** All rows, the most similar first; null without a query. */
export const byMeaning = computed(() => (answer.value?.values ? sortedRows(answer.value.values, true) : null));
/** The text that is being looked for, or null. */
export const pending = computed(() => (meaning.value && answer.value?.text !== meaning.value ? meaning.value : null));

/** Why the query has no answer, or which words it leaves out; empty if nothing is to be said. */
export const remark = computed(() => {
  const { problem = "", unknown = [] } = (pending.value === null && answer.value) || {};
  return problem || (unknown.length ? `Not among the words of this page: ${unknown.join(", ")}.` : "");
});

/** Write the similarity of a row to the query; empty without. */
export function similarityOf(row: number): string {
  const value = answer.value?.values?.[row];
  return value === undefined || value !== value ? "" : value.toFixed(2).replace("-", MINUS);
}

/** Answer with the mean vector of the words of a text, as an export has no model. */
async function ofWords(text: string): Promise<Omit<Answer, "text">> {
  if (!manifest.words) return { values: null, unknown: [], problem: `This page has no vectors of words. ${manifest.no_words ?? ""}`.trim() };
  const { words, width, vectors, images } = await wordVectors(), all = [...new Set(tokens(text))];
  const unknown = all.filter((word) => !words.has(word)), mean = new Float32Array(width);
  for (const word of all) {
    const start = words.get(word);
    if (start !== undefined) for (let k = 0; k < width; k++) mean[k] += vectors.scales[start] * vectors.codes[start * width + k];
  }
  const length = Math.hypot(...mean);
  if (!length) return { values: null, unknown, problem: "No word of the query is among the words of this page." };
  return { values: similarities(images.codes, images.scales, mean.map((value) => value / length)), unknown, problem: "" };
}

async function ask(text: string): Promise<void> {
  let next: Omit<Answer, "text">;
  try {
    if (text.length > LONGEST) throw new Error(`A query by meaning has at most ${LONGEST} characters; this one has ${text.length}.`);
    next = live ? { values: await similaritiesTo(text), unknown: [], problem: "" } : await ofWords(text);
  } catch (error) {
    next = { values: null, unknown: [], problem: (error as Error).message };
  }
  if (meaning.peek() === text) answer.value = { text, ...next };
}

/** Answer the queries of the address and of the search field. */
export function startMeaning(): void {
  let timer = 0;
  effect(() => {
    const text = meaning.value, first = answer.peek() === null;
    clearTimeout(timer);
    if (!text) answer.value = null;
    else timer = window.setTimeout(() => void ask(text), first ? 0 : DELAY);
  });
}
