/** The help and the export, as dialogs of the browser, which keep the focus inside. */

import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { captionsOf, manifest, thumbnail } from "./data";
import { download, type Format, formats, ready, type Which } from "./exports";
import { shown } from "./filters";
import { bindings } from "./keys";
import { markedRows, marksChanged } from "./marks";
import { enlarged, help, pair } from "./state";
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

function Export() {
  void marksChanged.value;
  const totals: Record<Which, number> = { shown: shown.value?.length ?? 0, marked: markedRows().length };
  return (
    <Dialog title="Export" close={() => (exporting.value = false)}>
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
