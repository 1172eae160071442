/** The user's groups: read from the server, kept current by events, by `version`. */
import { computed, signal } from "@preact/signals";
import type { Group, Message, PublicGroup } from "../api/types";
import type { ServerEvent } from "../wire/frames";

export interface GroupView {
  readonly group: Group;
  readonly lastSeq: number;
  /** Everything up to it counts as read. */
  readonly readSeq: number;
  /** The newest message, where it is known. */
  readonly lastMessage: Message | null;
}

type MemberEvent = Extract<ServerEvent, { type: "group.member" }>;

const UNREAD_SHOWN_MAX = 99;
/** Groups we are out of that are remembered, so that older news does not bring them back. */
const LEFT_MAX = 1_000;

export function unreadOf(view: GroupView): number {
  return Math.max(0, view.lastSeq - view.readSeq);
}

/** Empty for none, `99+` above 99. */
export function unreadLabel(unread: number): string {
  if (unread === 0) return "";
  return unread > UNREAD_SHOWN_MAX ? `${UNREAD_SHOWN_MAX}+` : String(unread);
}

function activity(view: GroupView): number {
  return view.lastMessage?.ts ?? view.group.created_at;
}

export class Groups {
  readonly views = signal<ReadonlyMap<string, GroupView>>(new Map());
  readonly loaded = signal(false);
  /** By latest activity. */
  readonly sorted = computed(() => [...this.views.value.values()].sort((a, b) => activity(b) - activity(a)));
  readonly unread = computed(() => this.sorted.value.reduce((sum, view) => sum + unreadOf(view), 0));
  /** Groups that were left, with the version that said so: news that we joined may be older. */
  private readonly left = new Map<string, number>();

  constructor(private readonly userId: () => string) {}

  get(groupId: string): GroupView | undefined {
    return this.views.value.get(groupId);
  }

  /** The whole list was read; returns the ids of those that are gone. Which came since it was asked for (not `known` then), it cannot tell. */
  replace(found: readonly Group[], known: Iterable<string>): string[] {
    const ids = new Set(found.map((group) => group.id));
    const gone = [...known].filter((id) => !ids.has(id) && this.get(id) !== undefined);
    this.update((views) => {
      for (const id of gone) views.delete(id);
      for (const group of found) if (group.version >= (this.left.get(group.id) ?? 0)) put(views, group);
    });
    this.loaded.value = true;
    return gone;
  }

  /** The server was restored: numbers may be lower now. */
  forget(): void {
    this.left.clear();
    this.views.value = new Map();
  }

  /** The answer to our own request: newer than anything that was said before. */
  learn(group: Group): void {
    this.left.delete(group.id);
    this.update((views) => put(views, group));
  }

  onJoined(group: Group): boolean {
    if (group.version < (this.left.get(group.id) ?? 0)) return false;
    this.update((views) => put(views, group));
    return true;
  }

  /** False: we are not in that group, as far as is known here. */
  onUpdated(group: PublicGroup): boolean {
    const view = this.get(group.id);
    if (view === undefined) return false;
    if (group.version >= view.group.version) this.set({ ...view, group: { ...view.group, ...group } });
    return true;
  }

  onMember(event: MemberEvent): void {
    const view = this.get(event.group_id);
    if (view === undefined || event.version < view.group.version) return;
    const own = event.user.id === this.userId() && event.role !== null;
    const mine = own ? { role: event.role ?? view.group.role, muted_until: event.muted_until } : {};
    this.set({ ...view, group: { ...view.group, version: event.version, member_count: event.member_count, ...mine } });
  }

  /** True: we are out now. */
  onLeft(groupId: string, version: number): boolean {
    const view = this.get(groupId);
    if (view === undefined || version < view.group.version) return false;
    this.left.set(groupId, version);
    if (this.left.size > LEFT_MAX)
      for (const oldest of this.left.keys()) {
        this.left.delete(oldest);
        break;
      }
    this.update((views) => views.delete(groupId));
    return true;
  }

  /** Messages became readable; sending counts as reading. */
  onMessages(groupId: string, messages: readonly Message[]): void {
    const view = this.get(groupId);
    const newest = messages.at(-1);
    if (view === undefined || newest === undefined) return;
    const own = messages.filter((message) => message.sender_id === this.userId()).at(-1)?.seq ?? 0;
    this.set({
      ...view,
      lastSeq: Math.max(view.lastSeq, newest.seq),
      readSeq: Math.max(view.readSeq, own),
      lastMessage: (view.lastMessage?.seq ?? 0) < newest.seq ? newest : view.lastMessage,
    });
  }

  onRead(groupId: string, seq: number): void {
    const view = this.get(groupId);
    if (view !== undefined && seq > view.readSeq) this.set({ ...view, readSeq: seq });
  }

  private set(view: GroupView): void {
    this.update((views) => views.set(view.group.id, view));
  }

  private update(change: (views: Map<string, GroupView>) => void): void {
    const views = new Map(this.views.value);
    change(views);
    this.views.value = views;
  }
}

function put(views: Map<string, GroupView>, group: Group): void {
  const readSeq = group.last_seq - group.unread;
  const view = views.get(group.id);
  if (view === undefined) views.set(group.id, { group, lastSeq: group.last_seq, readSeq, lastMessage: null });
  else {
    // Messages may have arrived since the answer was made.
    views.set(group.id, {
      ...view,
      group: group.version >= view.group.version ? group : view.group,
      lastSeq: Math.max(view.lastSeq, group.last_seq),
      readSeq: Math.max(view.readSeq, readSeq),
    });
  }
}
