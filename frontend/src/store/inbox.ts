/** What comes down, by group: cursors decide what becomes readable. No I/O. */
import type { Message } from "../api/types";
import type { Resumed } from "../wire/frames";
import { Cursor, type Pull } from "./cursor";

export class Inbox {
  private readonly cursors = new Map<string, Cursor>();

  constructor(
    /** Messages of a group, in order, each once. */
    private readonly onMessages: (groupId: string, messages: readonly Message[]) => void,
    /** Pull this group after a random part of so many milliseconds. */
    private readonly wantPull: (groupId: string, withinMs: number) => void,
  ) {}

  get(groupId: string): Cursor | undefined {
    return this.cursors.get(groupId);
  }

  get groupIds(): string[] {
    return [...this.cursors.keys()];
  }

  /** A group that is ours; what is there already is history. */
  add(groupId: string, lastSeq: number): void {
    if (!this.cursors.has(groupId)) this.cursors.set(groupId, new Cursor(lastSeq));
  }

  drop(groupId: string): void {
    this.cursors.delete(groupId);
  }

  forget(): void {
    this.cursors.clear();
  }

  /** A packet may overtake the news that the user joined: its `prevSeq` is a fine first position. */
  onPacket(groupId: string, prevSeq: number, items: readonly Message[]): void {
    this.add(groupId, prevSeq);
    const cursor = this.cursors.get(groupId);
    if (cursor !== undefined) this.release(groupId, cursor, cursor.onPacket(prevSeq, items), 0);
  }

  onGap(groupId: string, toSeq: number | undefined, withinMs: number): void {
    const cursor = this.cursors.get(groupId);
    if (cursor === undefined) return;
    cursor.onGap(toSeq);
    this.release(groupId, cursor, [], withinMs);
  }

  onPulled(groupId: string, pull: Pull, items: readonly Message[], complete: boolean): void {
    const cursor = this.cursors.get(groupId);
    if (cursor !== undefined) this.release(groupId, cursor, cursor.onPulled(pull, items, complete), 0);
  }

  beginPulls(): Map<string, Pull> {
    return new Map([...this.cursors].map(([id, cursor]) => [id, cursor.beginPull()]));
  }

  /** Returns the groups whose position is void. */
  onResumed(pulls: ReadonlyMap<string, Pull>, answer: Readonly<Record<string, Resumed>>): string[] {
    const reset: string[] = [];
    for (const [groupId, pull] of pulls) {
      const found = answer[groupId];
      if (found === undefined || found.state === "reset") {
        reset.push(groupId);
        this.drop(groupId);
      } else if (found.state === "behind") this.onGap(groupId, found.last_seq, 0);
      else this.onPulled(groupId, pull, found.items ?? [], true);
    }
    return reset;
  }

  private release(groupId: string, cursor: Cursor, messages: readonly Message[], withinMs: number): void {
    if (messages.length > 0) this.onMessages(groupId, messages);
    if (cursor.wantsPull) this.wantPull(groupId, withinMs);
  }
}
