/** The messages of one group that are on hand: one contiguous run of seqs, mostly the newest ones, elsewhere after a jump. */
import { signal } from "@preact/signals";
import type { Message } from "../api/types";

/** Beyond it the far end is let go; scrolling there reads it again. */
const MAX_ITEMS = 10_000;

export class Timeline {
  /** Rising, without holes. */
  readonly items = signal<readonly Message[]>([]);
  /** Whether the run was read at all. */
  readonly loaded = signal(false);
  /** Whether the run ends at the newest message, so that what arrives belongs to it. */
  readonly live = signal(true);
  /** Whether a page is being read at either end, and what the last attempt failed with. */
  readonly loading = signal<"older" | "newer" | "page" | null>(null);
  readonly failed = signal(false);

  get first(): number {
    return this.items.value[0]?.seq ?? 0;
  }

  get last(): number {
    return this.items.value.at(-1)?.seq ?? 0;
  }

  /** Whether there are older messages; seqs begin at 1. */
  get hasOlder(): boolean {
    return this.first > 1;
  }

  /** A page was read afresh; what arrived since it was asked for and follows it stays. */
  show(page: readonly Message[], live: boolean): void {
    const end = page.at(-1)?.seq ?? 0;
    const since = live && this.live.value ? this.items.value.filter((item) => item.seq > end) : [];
    this.items.value = since[0] === undefined || since[0].seq === end + 1 ? [...page, ...since] : page;
    this.live.value = live;
    this.loaded.value = true;
  }

  /** Messages became readable, in order and following what came before. */
  append(messages: readonly Message[]): void {
    if (!this.live.value) return;
    const last = this.last;
    const fresh = messages.filter((message) => message.seq > last);
    if (fresh.length === 0) return;
    const joined = last === 0 || fresh[0]?.seq === last + 1 ? [...this.items.value, ...fresh] : fresh;
    this.items.value = joined.length > MAX_ITEMS ? joined.slice(-MAX_ITEMS) : joined;
  }

  /** A page that ends right before the first message. */
  prepend(page: readonly Message[]): void {
    const first = this.first;
    const older = page.filter((message) => message.seq < first);
    if (older.length === 0 || older.at(-1)?.seq !== first - 1) return;
    const joined = [...older, ...this.items.value];
    if (joined.length > MAX_ITEMS) {
      joined.length = MAX_ITEMS;
      this.live.value = false;
    }
    this.items.value = joined;
  }

  /** After a jump: a page that follows the last message; `head` is the newest seq known. */
  extend(page: readonly Message[], head: number): void {
    const last = this.last;
    const newer = page.filter((message) => message.seq > last);
    if (newer[0] !== undefined && newer[0].seq !== last + 1) return;
    const joined = [...this.items.value, ...newer];
    this.items.value = joined.length > MAX_ITEMS ? joined.slice(-MAX_ITEMS) : joined;
    if (this.last >= head) this.live.value = true;
  }

  /** Forget everything: the next look reads afresh. */
  reset(): void {
    this.items.value = [];
    this.live.value = true;
    this.loaded.value = false;
  }
}
