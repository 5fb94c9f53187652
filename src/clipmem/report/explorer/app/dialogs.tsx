/** The help and the export, as dialogs of the browser, which keep the focus inside. */

import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { captionsOf, manifest, thumbnail } from "./data";
import { download, type Format, formats, ready, type Which } from "./exports";
import { shown } from "./filters";
import { bindings } from "./keys";
import { hosted, markedRows, marksChanged } from "./marks";
import { enlarged, help, pair } from "./state";
import { suspects, tally, write, writes, writing } from "./suspects";
import { count, visible } from "./text";

export const exporting = signal(false);

function Dialog({ title, close, children }: { title: string; close: () => void; children: ComponentChildren }) {
  const element = useRef<HTMLDialogElement>(null);
  // before the next key arrives: an Escape that finds the dialog drawn but not open would close nothing
  useLayoutEffect(() => element.current!.showModal(), []);
  return (
    <dialog
      ref={element} aria-label={title} onClose={close} onCancel={(event) => (event.preventDefault(), close())}
      onClick={(event) => event.target === element.current && close()}
    >
      <header>
        <h2>{title}</h2>
        <button type="button" onClick={close}>Close <kbd>Esc</kbd></button>
      </header>
      {children}
    </dialog>
  );
}

const NAMES: Record<string, string> = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc", PageUp: "Page ↑", PageDown: "Page ↓" };

function Help() {
  return (
    <Dialog title="Keys" close={() => (help.value = false)}>
      <dl class="keys">
        {bindings.map((one) => (
          <div key={one.about}>
            <dt>{one.keys.map((key) => <kbd key={key}>{NAMES[key] ?? key}</kbd>)}</dt>
            <dd>{one.about}</dd>
          </div>
        ))}
        <div>
          <dt><kbd>Space</kbd><kbd>Enter</kbd></dt>
          <dd>on the map: arrows move the cross (Shift: farther), Space sets a corner of the lasso, Enter closes it, + − 0 zoom</dd>
        </div>
      </dl>
      <p class="soft">The address holds the filters, order and view: send it, and another person sees the same.</p>
    </Dialog>
  );
}

const busy = signal(""), problem = signal("");

async function save(format: Format, which: Which): Promise<void> {
  busy.value = `${format} ${which}`;
  problem.value = "";
  await download(format, which).catch((error: Error) => (problem.value = error.message));
  busy.value = "";
}

const UNMARKED = [["remove", "remove"], ["correct", "give the suggested captions, and remove those without"], ["keep", "keep: apply my marks only"]] as const;
const unmarked = signal<(typeof UNMARKED)[number][0]>("remove");

/** The cleaned data: written by the server, or the command that writes them. */
function Cleaned() {
  const { command, folder, marks } = manifest.review!, field = useRef<HTMLInputElement>(null), state = writing.value;
  const { removed, corrected, kept, other } = tally.value, open = (suspects.value?.length ?? 0) - removed - corrected - kept;
  const option = { remove: "", correct: " --correct", keep: " --reviewed-only" }[unmarked.value];
  return (
    <section class="cleaned">
      <h3>Cleaned data</h3>
      <p>{count(removed)} removed and {count(corrected)} corrected by your marks, {count(kept)} kept{other > 0 && `, ${count(other)} marked otherwise`}.</p>
      {open > 0 && (
        <fieldset>
          <legend>{open === 1 ? "The suspect" : `The ${count(open)} suspects`} without a decision</legend>
          {UNMARKED.map(([name, text]) => (
            <label key={name}>
              <input type="radio" name="unmarked" checked={unmarked.value === name} onChange={() => (unmarked.value = name)} /> {text}
            </label>
          ))}
        </fieldset>
      )}
      {writes() ? (
        <form class="buttons" onSubmit={(event) => (event.preventDefault(), void write(field.current!.value, unmarked.value))}>
          <input ref={field} autofocus type="text" defaultValue={folder} aria-label="New folder for the cleaned data" spellcheck={false} />
          <button type="submit" class="primary" disabled={state?.running}>Write</button>
        </form>
      ) : command ? (
        <p>{hosted.value ? "Your marks are saved. Run" : <>Save your marks below as <code>{marks}</code> into the folder of the suspects, then run</>} <code>{`${command} --write ${folder}${option}`}</code></p>
      ) : null}
      <p role="status" class={state?.error ? "warn" : ""}>
        {state?.running && `Writing: ${state.stage}${state.share === null ? "" : `, ${Math.round(100 * state.share)}%`} …`}
        {state?.error && `Not written: ${visible(state.error)}`}
        {state?.written && <>Wrote <code>{visible(state.written.path)}</code>: {count(state.written.read)} pairs read, {count(state.written.kept)} kept, {count(state.written.corrected)} corrected, {count(state.written.removed)} removed. The data as they came are unchanged.</>}
      </p>
    </section>
  );
}

function Export() {
  void marksChanged.value;
  const totals: Record<Which, number> = { shown: shown.value?.length ?? 0, marked: markedRows().length };
  return (
    <Dialog title="Export" close={() => (exporting.value = false)}>
      {manifest.review && <Cleaned />}
      {(["shown", "marked"] as const).map((which) => (
        <section key={which}>
          <h3>{count(totals[which])} {which} {totals[which] === 1 ? "pair" : "pairs"}</h3>
          <div class="buttons">
            {formats.filter((one) => one.format !== "marks" || which === "marked").map(({ format, label }) => (
              <button
                type="button" key={format} onClick={() => void save(format, which)}
                disabled={!ready(format) || busy.value !== "" || totals[which] === 0}
              >
                {label}
              </button>
            ))}
          </div>
        </section>
      ))}
      <p role="status">{problem.value ? `Not exported: ${problem.value}` : busy.value ? "Writing …" : ""}</p>
      {manifest.credits.length > 0 && (
        <section>
          <h3>Licenses of the images</h3>
          <ul class="credits">{manifest.credits.map((credit) => <li key={credit}>{credit}</li>)}</ul>
        </section>
      )}
    </Dialog>
  );
}

function Enlarged({ row }: { row: number }) {
  const caption = visible(captionsOf(row, 160)[0] ?? "");
  return (
    <Dialog title={caption || "Image"} close={() => (enlarged.value = false)}>
      <img class="large" src={thumbnail(row, 1024)} alt={caption || "image"} />
    </Dialog>
  );
}

export function Dialogs() {
  return <>{help.value && <Help />}{exporting.value && <Export />}{enlarged.value && pair.value !== null && <Enlarged row={pair.value} />}</>;
}
