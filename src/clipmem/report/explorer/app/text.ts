/** Writes numbers and hostile text so that they can be read, on the page and in files. */

import { byName, type ColumnInfo } from "./data";
import { MISSING } from "./engine";

export const count = (value: number) => value.toLocaleString("en-US");

/** Write a number with a true minus sign, and a plus where the column has both signs. */
export function number(value: number | null | undefined, info?: ColumnInfo): string {
  if (value === null || value === undefined || value !== value || value === MISSING) return "–";
  const signed = info ? (info.min ?? 0) < 0 : true, size = Math.abs(value);
  const text = Number.isInteger(value) && (info?.type === "i32" || size >= 1000) ? count(size)
    : size >= 1000 ? size.toFixed(0) : size >= 10 ? size.toFixed(2) : size.toFixed(3);
  const zero = !/[1-9]/.test(text);
  return (value < 0 && !zero ? "−" : signed && !zero ? "+" : "") + text;
}

export const labelOf = (name: string) => (name === "mark" ? "Mark" : (byName.get(name)?.label ?? name));

const CODE = (character: string) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;

/** Replace characters that hide or reorder text by a visible form. */
export function visible(text: string): string {
  return text
    .replace(/[\0-\x1f]/g, (character) => String.fromCharCode(0x2400 + character.charCodeAt(0)))
    .replace(/\x7f/g, "\u2421")
    .replace(/[\x80-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff]/g, CODE);
}

const FORMULA = /^[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/;

/** Write a text as a quoted cell of CSV that no spreadsheet takes for a formula. */
export function cell(text: string): string {
  const shown = text.replace(/[\0-\x08\x0b-\x1f\x7f]/g, (one) => `\\x${one.charCodeAt(0).toString(16).padStart(2, "0")}`);
  const guarded = FORMULA.test(text) || FORMULA.test(shown.trimStart()) ? `'${shown}` : shown;
  return `"${guarded.replaceAll('"', '""')}"`;
}
