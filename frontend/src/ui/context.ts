/** What every part of the page reaches: the store, and which panel, dialog and toasts are open. */
import { signal } from "@preact/signals";
import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { Store } from "../store/store";

export type Panel = "people" | "search" | null;
export type OpenDialog = "new-group" | "discover" | "settings" | "about" | null;

export interface Toast {
  readonly id: number;
  readonly text: string;
}

const TOAST_MS = 6_000;
const TOASTS_MAX = 3;

export class Shell {
  readonly panel = signal<Panel>(null);
  readonly dialog = signal<OpenDialog>(null);
  readonly toasts = signal<readonly Toast[]>([]);
  private nextToast = 1;

  constructor(readonly store: Store) {}

  toggle(panel: Panel): void {
    this.panel.value = this.panel.value === panel ? null : panel;
  }

  toast(text: string): void {
    const toast = { id: this.nextToast++, text };
    this.toasts.value = [...this.toasts.value, toast].slice(-TOASTS_MAX);
    setTimeout(() => {
      this.toasts.value = this.toasts.value.filter((one) => one.id !== toast.id);
    }, TOAST_MS);
  }
}

const ShellContext = createContext<Shell | null>(null);
export const ShellProvider = ShellContext.Provider;

export function useShell(): Shell {
  const shell = useContext(ShellContext);
  if (shell === null) throw new Error("no shell around this component");
  return shell;
}

export function useStore(): Store {
  return useShell().store;
}
