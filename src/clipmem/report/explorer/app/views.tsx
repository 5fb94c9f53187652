/** Ready views, those that answer a question and those that somebody saved: a name for an address each. */

import { computed, signal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { byName, column, IMAGE_GROUP, manifest } from "./data";
import { addressOf, encoded, isNumeric } from "./state";
import { count, visible } from "./text";

interface Saved {
  name: string;
  address: string;
}

const suspects = computed(() => (column("is_suspect")?.codes as Uint8Array | undefined)?.reduce((total, code) => total + Number(code === 1), 0));

/** The views that the columns allow. */
function presets(): Saved[] {
  const candidates: Record<string, string[]> = byName.get("role")?.categories?.includes("candidate") ? { role: ["candidate"] } : {};
  const all: Saved[] = [];
  const add = (name: string, column: string | undefined, descending: boolean, chosen: Record<string, string[]>) => {
    if (column && isNumeric(column)) all.push({ name, address: addressOf({ column, descending }, chosen) });
  };
  const order = ["suspect_rank", "score", "probability"].find(isNumeric), total = suspects.value;
  if (byName.get("is_suspect")?.type === "bool") {
    add(`Suspects (${total === undefined ? "…" : count(total)})`, order, order !== "suspect_rank", { is_suspect: ["yes"] });
  }
  add("Most memorized", "clipmem", true, candidates);
  add("Least memorized", "clipmem", false, candidates);
  if (byName.has(IMAGE_GROUP)) all.push({ name: "Same image", address: `${addressOf({ column: IMAGE_GROUP, descending: false }, {})}&in.${IMAGE_GROUP}=-Infinity..Infinity` });
  add("Rose most", manifest.compare?.change, true, candidates);
  add("Fell most", manifest.compare?.change, false, candidates);
  return all;
}

const saved = signal<Saved[]>([]), refused = signal("");
const place = () => `clipmem-views-${manifest.hash}`;

/** Read what this and other windows saved. */
function read(): void {
  try {
    const stored: unknown = JSON.parse(localStorage.getItem(place()) ?? "[]");
    saved.value = (stored as Saved[]).filter((one) => typeof one?.name === "string" && typeof one.address === "string");
  } catch {
    saved.value = []; // somebody else's text, or no storage in this browser
  }
}

function keep(change: (views: Saved[]) => Saved[]): boolean {
  read();
  saved.value = change(saved.value);
  try {
    localStorage.setItem(place(), JSON.stringify(saved.value));
    refused.value = "";
  } catch {
    refused.value = "This browser stores nothing: the view is gone when this window closes.";
  }
  return !refused.value;
}

export function Views() {
  const menu = useRef<HTMLDetailsElement>(null);
  const all = presets(), now = encoded(false), current = [...all, ...saved.value].find((one) => one.address === now);
  const close = () => (menu.current!.open = false);
  const button = ({ name, address }: Saved) => (
    <button type="button" aria-current={address === now} onClick={() => (close(), (location.hash = address))}>{visible(name)}</button>
  );
  const save = (event: SubmitEvent) => {
    event.preventDefault();
    const field = (event.currentTarget as HTMLFormElement).elements.namedItem("name") as HTMLInputElement, name = field.value.trim();
    if (!name) return void (refused.value = "Give the view a name.");
    if (keep((views) => [...views.filter((one) => one.name !== name), { name, address: encoded(false) }])) field.value = "";
  };
  return (
    <details
      class="views" ref={menu} onToggle={() => menu.current!.open && read()}
      onKeyDown={(event) => event.key === "Escape" && (event.stopPropagation(), close(), menu.current!.querySelector("summary")!.focus())}
      onFocusOut={(event) => menu.current!.contains(event.relatedTarget as Node | null) || close()}
    >
      <summary id="views" title="Choose or save a view (v)">{current ? visible(current.name) : "Views"}</summary>
      <div class="menu" tabIndex={-1}>
        <ul aria-label="Views">{all.map((one) => <li key={one.name}>{button(one)}</li>)}</ul>
        {saved.value.length > 0 && <h2>Saved in this browser</h2>}
        <ul aria-label="Saved views">
          {saved.value.map((one) => (
            <li key={one.name}>
              {button(one)}
              <button type="button" aria-label={`Forget ${visible(one.name)}`} onClick={() => keep((views) => views.filter(({ name }) => name !== one.name))}>×</button>
            </li>
          ))}
        </ul>
        <form onSubmit={save}>
          <input name="name" maxLength={60} aria-label="Name of this view" placeholder="Name of this view" autocomplete="off" />
          <button type="submit">Save</button>
        </form>
        {refused.value && <p class="warn" role="alert">{refused.value}</p>}
      </div>
    </details>
  );
}
