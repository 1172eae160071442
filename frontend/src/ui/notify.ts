/** Unread messages in the title, and notifications of the desktop for those who want them. */
import { effect, signal } from "@preact/signals";
import { unreadLabel } from "../store/groups";
import { Keep } from "../store/storage";
import type { Store } from "../store/store";
import { go, groupHref, route } from "./route";

const keep = new Keep("page");
const BODY_MAX = 140;

class Notifications {
  readonly possible = "Notification" in window;
  readonly wanted = signal<boolean>(
    this.possible && keep.get<boolean>("notifications", false) && Notification.permission === "granted",
  );
  readonly denied = signal(this.possible && Notification.permission === "denied");

  async set(wanted: boolean): Promise<void> {
    const granted = wanted && (await Notification.requestPermission()) === "granted";
    this.denied.value = wanted && !granted;
    this.wanted.value = granted;
    keep.set("notifications", granted);
  }
}

export const notifications = new Notifications();

export function startTitle(store: Store): void {
  effect(() => {
    const where = route.value;
    const name = where.name === "group" ? store.groups.views.value.get(where.groupId)?.group.name : undefined;
    const unread = unreadLabel(store.groups.unread.value);
    document.title = `${unread === "" ? "" : `(${unread}) `}${name === undefined ? "" : `${name} · `}Magpie`;
  });
}

/** A message arrived while the page is in the background. */
export function notify(groupId: string, groupName: string, who: string, body: string): void {
  if (!notifications.wanted.value || !document.hidden) return;
  const text = `${who === "" ? "" : `${who}: `}${body.slice(0, BODY_MAX)}`;
  let shown: Notification;
  try {
    shown = new Notification(groupName, { body: text, tag: groupId, icon: "/static/logo.svg" });
  } catch {
    // Browsers of phones permit them, and then want them from a service worker only.
    return;
  }
  shown.onclick = () => {
    window.focus();
    go(groupHref(groupId));
    shown.close();
  };
}
