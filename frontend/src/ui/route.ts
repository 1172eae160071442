/** Where the page is, in the address behind `#`: it never leaves the browser, and survives the way through the login pages. */
import { signal } from "@preact/signals";

export type Route =
  | { readonly name: "home" }
  | { readonly name: "group"; readonly groupId: string; readonly seq: number | null }
  | { readonly name: "join"; readonly groupId: string; readonly code: string };

export function parseRoute(hash: string): Route {
  const group = /^#\/g\/(\d{1,19})(?:\/(\d{1,15}))?$/.exec(hash);
  if (group?.[1] !== undefined) {
    return { name: "group", groupId: group[1], seq: group[2] === undefined ? null : Number(group[2]) };
  }
  const join = /^#\/join\/(\d{1,19})\/([A-Za-z0-9_-]{1,64})$/.exec(hash);
  if (join?.[1] !== undefined && join[2] !== undefined) return { name: "join", groupId: join[1], code: join[2] };
  return { name: "home" };
}

export const route = signal<Route>(parseRoute(location.hash));
addEventListener("hashchange", () => {
  route.value = parseRoute(location.hash);
});

export function groupHref(groupId: string, seq?: number): string {
  return seq === undefined ? `#/g/${groupId}` : `#/g/${groupId}/${seq}`;
}

export function inviteUrl(groupId: string, code: string): string {
  return `${location.origin}/#/join/${groupId}/${code}`;
}

export function go(hash: string): void {
  if (location.hash === hash) route.value = parseRoute(hash);
  else location.hash = hash;
}
