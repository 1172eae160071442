/** Who is online in the group on screen. It is read when the group is opened; events with a higher `ts` go on from there. */
import { signal } from "@preact/signals";
import type { Http } from "../api/client";
import type { ServerEvent } from "../wire/frames";

type PresenceEvent = Extract<ServerEvent, { type: "presence" }>;

interface Known {
  readonly online: boolean;
  /** Milliseconds since 1970, to the minute; null for who is online, and for who never was. */
  readonly lastSeen: number | null;
  readonly ts: number;
}

/** Events may be missing: an open group is read again this often. */
const READ_EVERY_MS = 120_000;
/** Several people may join at once. */
const READ_SOON_MS = 1_000;
/** People one has groups with; those beyond it are read again when their group is opened. */
const KNOWN_MAX = 5_000;

function without<T>(map: ReadonlyMap<string, T>, key: string): ReadonlyMap<string, T> {
  return new Map([...map].filter(([other]) => other !== key));
}

export class Presence {
  private readonly users = signal<ReadonlyMap<string, Known>>(new Map());
  /** Large group → how many are online. */
  private readonly counts = signal<ReadonlyMap<string, number>>(new Map());
  /** Small group → its members, as of the last reading. */
  private readonly members = signal<ReadonlyMap<string, readonly string[]>>(new Map());
  private enabled = false;
  private opened: string | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly http: Http,
    private readonly ownId: () => string,
  ) {}

  /** Connected; the server may not tell at all. */
  onHello(features: readonly string[]): void {
    const again = this.enabled;
    this.enabled = features.includes("presence");
    // Many may come back at once.
    this.readAfter(again ? Math.random() * READ_SOON_MS : 0);
  }

  /** The group on screen. */
  open(groupId: string | null): void {
    this.opened = groupId;
    this.readAfter(0);
  }

  /** No member any more. */
  drop(groupId: string): void {
    if (groupId === this.opened) this.open(null);
    this.counts.value = without(this.counts.value, groupId);
    this.members.value = without(this.members.value, groupId);
  }

  onEvent(event: PresenceEvent): void {
    this.learn([event], event.ts);
  }

  onCount(groupId: string, online: number): void {
    this.counts.value = new Map(this.counts.value).set(groupId, online);
  }

  /** Somebody joined, of whom nothing is known yet, or is out. */
  onMembers(groupId: string): void {
    if (groupId === this.opened) this.readAfter(READ_SOON_MS);
  }

  /** Undefined: not known. Who asks is online. */
  of(userId: string): Pick<Known, "online" | "lastSeen"> | undefined {
    const known = this.users.value.get(userId);
    return known !== undefined && userId === this.ownId() ? { online: true, lastSeen: null } : known;
  }

  /** How many are online in a group; null: not known. */
  count(groupId: string): number | null {
    const members = this.members.value.get(groupId);
    if (members === undefined) return this.counts.value.get(groupId) ?? null;
    return members.filter((userId) => this.of(userId)?.online).length;
  }

  private readAfter(ms: number): void {
    clearTimeout(this.timer);
    if (!this.enabled || this.opened === null) return;
    this.timer = setTimeout(() => void this.read(), ms);
  }

  private async read(): Promise<void> {
    const groupId = this.opened;
    this.readAfter(READ_EVERY_MS * (0.8 + 0.4 * Math.random()));
    if (groupId === null || document.hidden) return;
    try {
      const { client, ask } = this.http;
      const path = { group_id: groupId };
      const found = await ask(client.GET("/api/v1/groups/{group_id}/presence", { params: { path } }));
      const members = new Map(this.members.value);
      if (found.members === null) {
        members.delete(groupId);
        this.onCount(groupId, found.online);
      } else {
        members.set(
          groupId,
          found.members.map((member) => member.user_id),
        );
        this.learn(found.members, found.ts);
      }
      this.members.value = members;
    } catch {
      // Not worth a word: it is read again.
    }
  }

  private learn(news: readonly Pick<PresenceEvent, "user_id" | "state" | "last_seen">[], ts: number): void {
    const users = new Map(this.users.value);
    for (const { user_id, state, last_seen } of news) {
      if ((users.get(user_id)?.ts ?? 0) > ts) continue;
      users.delete(user_id);
      users.set(user_id, { online: state === "online", lastSeen: last_seen, ts });
    }
    for (const oldest of users.keys()) {
      if (users.size <= KNOWN_MAX) break;
      users.delete(oldest);
    }
    this.users.value = users;
  }
}
