/** Light or dark, as the system says. */

import { signal } from "@preact/signals";

const media = typeof matchMedia === "function" ? matchMedia("(prefers-color-scheme: dark)") : null;
export const dark = signal(media?.matches ?? false);
media?.addEventListener("change", () => (dark.value = media.matches));
