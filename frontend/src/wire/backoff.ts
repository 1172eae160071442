/** Waits that grow with each failure in a row, with full jitter. */
import type { Backoff } from "./frames";

export class Waits {
  private failures = 0;

  constructor(
    public backoff: Backoff,
    private readonly random: () => number = Math.random,
  ) {}

  /** Milliseconds to wait now; never shorter than the server asked, and spread beyond it. */
  next(askedMs: number | null = null): number {
    const { base_ms, max_ms, jitter } = this.backoff;
    const ceiling = Math.min(max_ms, base_ms * 2 ** Math.min(this.failures, 30));
    this.failures += 1;
    return (askedMs ?? 0) + ceiling * (1 - jitter * this.random());
  }

  reset(): void {
    this.failures = 0;
  }
}
