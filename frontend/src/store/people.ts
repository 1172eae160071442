/** Who is behind the ids, and who types. */
import { signal } from "@preact/signals";
import type { Http } from "../api/client";
import type { User } from "../api/types";

/** A typing notice counts so long; clients repeat it while somebody types. */
const TYPING_MS = 6_000;
/** Ids in one question. */
const LOOKUP_MAX = 100;
const LOOKUP_DELAY_MS = 30;

export class People {
  readonly users = signal<ReadonlyMap<string, User>>(new Map());
  /** Group → who types there. */
  readonly typing = signal<ReadonlyMap<string, readonly string[]>>(new Map());
  private readonly until = new Map<string, ReturnType<typeof setTimeout>>();
  private readonly asked = new Set<string>();
  private wanted = new Map<string, Set<string>>();

  constructor(private readonly http: Http) {}

  learn(users: readonly User[]): void {
    const news = users.filter((user) => {
      const known = this.users.value.get(user.id);
      return known?.display_name !== user.display_name || known.username !== user.username;
    });
    if (news.length === 0) return;
    const all = new Map(this.users.value);
    for (const { id, username, display_name } of news) all.set(id, { id, username, display_name });
    this.users.value = all;
  }

  /** The name, or an empty text while it is looked up: senders may have left the group long ago. */
  name(groupId: string, userId: string): string {
    const known = this.users.value.get(userId);
    if (known !== undefined) return known.display_name;
    this.want(groupId, userId);
    return "";
  }

  onTyping(groupId: string, userId: string): void {
    const key = `${groupId} ${userId}`;
    clearTimeout(this.until.get(key));
    this.until.set(
      key,
      setTimeout(() => this.stopTyping(groupId, userId), TYPING_MS),
    );
    const now = this.typing.value.get(groupId) ?? [];
    if (!now.includes(userId)) this.setTyping(groupId, [...now, userId]);
  }

  /** The message is there, or the person is gone. */
  stopTyping(groupId: string, userId: string): void {
    const key = `${groupId} ${userId}`;
    clearTimeout(this.until.get(key));
    this.until.delete(key);
    const now = this.typing.value.get(groupId) ?? [];
    if (now.includes(userId))
      this.setTyping(
        groupId,
        now.filter((id) => id !== userId),
      );
  }

  private setTyping(groupId: string, ids: readonly string[]): void {
    const all = new Map(this.typing.value);
    if (ids.length === 0) all.delete(groupId);
    else all.set(groupId, ids);
    this.typing.value = all;
  }

  private want(groupId: string, userId: string): void {
    const key = `${groupId} ${userId}`;
    if (this.asked.has(key)) return;
    this.asked.add(key);
    if (this.wanted.size === 0) setTimeout(() => void this.lookUp(), LOOKUP_DELAY_MS);
    const ids = this.wanted.get(groupId) ?? new Set();
    this.wanted.set(groupId, ids.add(userId));
  }

  private async lookUp(): Promise<void> {
    const wanted = this.wanted;
    this.wanted = new Map();
    // The conversation on screen wants more names than a line of the list: it comes first.
    for (const [groupId, ids] of [...wanted].sort(([, a], [, b]) => b.size - a.size)) {
      const all = [...ids];
      for (let start = 0; start < all.length; start += LOOKUP_MAX) {
        const some = all.slice(start, start + LOOKUP_MAX);
        try {
          const { client, ask } = this.http;
          const params = { path: { group_id: groupId }, query: { ids: some.join(",") } };
          this.learn((await ask(client.GET("/api/v1/groups/{group_id}/senders", { params }))).items);
        } catch {
          // Asked again when the name is shown the next time.
          for (const id of some) this.asked.delete(`${groupId} ${id}`);
        }
      }
    }
  }
}
