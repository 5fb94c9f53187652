/** Writes the shown or marked pairs to files: uids, CSV, and from a live server Parquet. */

import { captionColumn, captionsOf, categoriesOf, column, type ColumnInfo, live, manifest, token, uidOf, uidsLoaded } from "./data";
import { MISSING } from "./engine";
import { shown } from "./filters";
import { markedRows, markOf, marksAsLines } from "./marks";
import { numeric } from "./state";
import { cell } from "./text";

export type Format = "uids" | "csv" | "parquet" | "marks";
export type Which = "shown" | "marked";

export const formats: { format: Format; label: string; file: string }[] = [
  { format: "uids", label: "uids, one a line", file: "uids.txt" },
  { format: "csv", label: "CSV with captions and scores", file: "pairs.csv" },
  live
    ? { format: "parquet", label: "Parquet with captions and scores", file: "pairs.parquet" }
    : { format: "marks", label: "marks, for the run folder", file: "marks.jsonl" },
];

const rowsOf = (which: Which): ArrayLike<number> => (which === "marked" ? markedRows() : (shown.value ?? []));
const fields = (): ColumnInfo[] => [
  ...manifest.columns.filter((info) => info.type === "category" || info.type === "bool"),
  ...numeric(),
];

/** Load what a format needs; true once it is there. */
export function ready(format: Format): boolean {
  const uids = uidsLoaded();
  if (format !== "csv") return uids;
  const loaded = fields().map((info) => column(info.name) !== null);
  return uids && loaded.every(Boolean) && (captionColumn === null || captionsOf(0).length > 0);
}

function value(info: ColumnInfo, row: number): string {
  const { numbers, codes } = column(info.name)!;
  if (codes) return codes[row] < categoriesOf(info).length ? cell(categoriesOf(info)[codes[row]]) : '""';
  const one = numbers![row];
  if (one !== one || one === MISSING) return '""';
  return String(info.type === "f32" ? Number(one.toPrecision(8)) : one);
}

/** Write the table in parts, so that a million rows never are one string. */
function table(rows: ArrayLike<number>): Blob {
  const infos = fields(), parts: Blob[] = [];
  let lines = [["uid", "captions", "mark", ...infos.map((info) => info.name)].map(cell).join(",")];
  for (let k = 0; k < rows.length; k++) {
    const row = rows[k], words = captionsOf(row, Infinity).join(" | ");
    lines.push([cell(uidOf(row)), cell(words), cell(markOf(row) ?? ""), ...infos.map((info) => value(info, row))].join(","));
    if (lines.length >= 20000) (parts.push(new Blob([lines.join("\n"), "\n"])), (lines = []));
  }
  return new Blob([...parts, lines.join("\n"), "\n"], { type: "text/csv" });
}

async function contents(format: Format, which: Which): Promise<Blob> {
  const rows = rowsOf(which);
  if (format === "uids") return new Blob([Array.from(rows, (row) => `${uidOf(row)}\n`).join("")], { type: "text/plain" });
  if (format === "csv") return table(rows);
  if (format === "marks") return new Blob([marksAsLines()], { type: "application/jsonl" });
  const headers = { "content-type": "application/json", "x-clipmem-token": token };
  const body = JSON.stringify({ rows: Array.from(rows), what: "parquet" });
  const answer = await fetch("export", { method: "POST", headers, body });
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  return answer.blob();
}

/** Hand a file to the browser's downloads. */
export async function download(format: Format, which: Which): Promise<void> {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await contents(format, which));
  link.download = formats.find((one) => one.format === format)!.file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
