/**
 * The client rules of one group as a state machine without I/O: whatever is lost, repeated or reordered on the way down, the reader gets
 * every message once and in order.
 *
 * `have` is the highest seq below which nothing is missing. A packet that follows it is taken; a later one is kept aside while what is
 * between is pulled. Only pulling closes a gap.
 */
import type { Message } from "../api/types";

/** Messages kept aside; beyond it the pull brings them. */
const MAX_ASIDE = 1_000;

/** A question under way: messages after `after`. */
export interface Pull {
  readonly after: number;
  /** How many gaps had been announced when it was asked; later ones need a pull of their own. */
  readonly announced: number;
}

interface Packet {
  readonly prevSeq: number;
  readonly items: readonly Message[];
}

export class Cursor {
  private aside: Packet[] = [];
  private open = false;
  private gapTo = 0;
  private announced = 0;

  constructor(
    public have: number,
    private readonly maxAside = MAX_ASIDE,
  ) {}

  /** Whether something is known to be missing. */
  get wantsPull(): boolean {
    return this.open || this.gapTo > 0 || this.aside.length > 0;
  }

  /** Pushed messages; the first one follows `prevSeq`. Returns what became readable, in order. */
  onPacket(prevSeq: number, items: readonly Message[]): Message[] {
    if (prevSeq <= this.have) return [...this.takeDense(items), ...this.takeAside()];
    const kept = this.aside.reduce((sum, packet) => sum + packet.items.length, 0);
    if (kept + items.length > this.maxAside) this.announce(undefined);
    else if (this.aside.every((packet) => packet.prevSeq !== prevSeq || packet.items.length < items.length)) {
      this.aside.push({ prevSeq, items });
      this.aside.sort((a, b) => a.prevSeq - b.prevSeq);
    }
    return [];
  }

  /** Messages up to `toSeq` (without it: up to wherever the group is now) were not pushed. */
  onGap(toSeq: number | undefined): void {
    if (toSeq === undefined || toSeq > this.have) this.announce(toSeq);
  }

  /** What to ask for now. */
  beginPull(): Pull {
    return { after: this.have, announced: this.announced };
  }

  /** The stored messages after `pull.after`, rising; `complete`: there were no more when the answer was made. */
  onPulled(pull: Pull, items: readonly Message[], complete: boolean): Message[] {
    const released: Message[] = [];
    for (const item of items) {
      // A pull is the truth: what it leaves out does not exist.
      if (item.seq <= this.have) continue;
      this.have = item.seq;
      released.push(item);
    }
    const current = complete && pull.announced === this.announced;
    if (current || this.have >= this.gapTo) this.gapTo = 0;
    if (current) this.open = false;
    return [...released, ...this.takeAside()];
  }

  private announce(toSeq: number | undefined): void {
    this.announced += 1;
    if (toSeq === undefined) this.open = true;
    else this.gapTo = Math.max(this.gapTo, toSeq);
  }

  private takeDense(items: readonly Message[]): Message[] {
    const released: Message[] = [];
    for (const item of items) {
      if (item.seq > this.have + 1) {
        // Seqs are dense and packets contiguous; one with a hole is not trusted.
        this.announce(undefined);
        break;
      }
      if (item.seq === this.have + 1) {
        this.have = item.seq;
        released.push(item);
      }
    }
    return released;
  }

  private takeAside(): Message[] {
    const released: Message[] = [];
    for (let next = this.aside[0]; next !== undefined && next.prevSeq <= this.have; next = this.aside[0]) {
      this.aside.shift();
      released.push(...this.takeDense(next.items));
    }
    return released;
  }
}
