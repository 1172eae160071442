/** Light or dark: as the system, unless somebody chose. Kept in this browser. */
import { effect, signal } from "@preact/signals";
import { Keep } from "../store/storage";

export type Theme = "auto" | "light" | "dark";

const keep = new Keep("page");
export const theme = signal<Theme>(keep.get<Theme>("theme", "auto"));

export function startTheme(): void {
  effect(() => {
    document.documentElement.dataset.theme = theme.value;
    keep.set("theme", theme.value);
  });
}
