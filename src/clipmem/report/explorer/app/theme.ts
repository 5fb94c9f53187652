/** Light or dark, as the system says. */

import { signal } from "@preact/signals";
import { manifest } from "./data";

const media = typeof matchMedia === "function" ? matchMedia("(prefers-color-scheme: dark)") : null;
export const dark = signal(media?.matches ?? false);
media?.addEventListener("change", () => (dark.value = media.matches));

const ROLES = ["candidate", "independent", "shared", "external"];

/** Return the CSS variable of the color of a value: roles and marks have their own, others go by their place. */
export const inkOf = (column: string | null, value: string, place: number): string =>
  (column === "role" && ROLES.includes(value)) || (column === "mark" && manifest.marks.includes(value)) ? `--${value}` : `--g${Math.min(place, 5)}`;
