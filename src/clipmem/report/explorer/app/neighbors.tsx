/** Nearest neighbors of a pair by image and by caption, side by side in each model. */

import { captionsOf, LISTED, manifest, neighbors } from "./data";
import { Thumb } from "./gallery";
import { showSame } from "./state";
import { visible } from "./text";

function List({ row, space, side, others, open }: {
  row: number; space: "image" | "text"; side: string; others: Set<number>; open: (row: number) => void;
}) {
  const found = neighbors(row, space, side);
  if (!found?.length) return <p class="soft">{found ? "none" : "…"}</p>;
  return (
    <ol>
      {found.slice(0, LISTED).map((one) => (
        <li key={one.row}>
          <button type="button" onClick={() => open(one.row)} class={others.has(one.row) ? "" : "only"}>
            <Thumb row={one.row} size={96} />
            <span class="caption" dir="auto">{visible(captionsOf(one.row, 160)[0] ?? "")}</span>
            <span class="similarity">{one.similarity.toFixed(2)}</span>
          </button>
        </li>
      ))}
    </ol>
  );
}

export function Neighbors({ row, open }: { row: number; open: (row: number) => void }) {
  const sides = manifest.sides;
  return (
    <section class="neighbors" id="neighbors" tabIndex={-1}>
      <h3>Nearest neighbors <kbd>n</kbd></h3>
      <button type="button" onClick={() => showSame("neighbors", row)}>Show them in the gallery <kbd>g</kbd></button>
      {(["image", "text"] as const).map((space) => (
        <div key={space}>
          <h4>By {space === "image" ? "image" : "caption"}</h4>
          <div class="sides">
            {sides.map((side) => {
              const others = sides.filter((one) => one !== side).flatMap((one) => neighbors(row, space, one)?.slice(0, LISTED) ?? []);
              return (
                <div key={side}>
                  <h5>in {side}</h5>
                  <List row={row} space={space} side={side} others={new Set(others.map((one) => one.row))} open={open} />
                </div>
              );
            })}
          </div>
        </div>
      ))}
      {sides.length > 1 && <p class="soft">A bar on the left: a neighbor under this model only, among the first {LISTED}.</p>}
    </section>
  );
}
