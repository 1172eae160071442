/** Read marks on their way to the server: only the newest of each group, about once a second, kept while there is no connection. */
import type { Socket } from "../wire/socket";

const FLUSH_MS = 700;

export class ReadMarks {
  private readonly wanted = new Map<string, number>();
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly current: () => Socket | null) {}

  mark(groupId: string, seq: number): void {
    this.wanted.set(groupId, Math.max(seq, this.wanted.get(groupId) ?? 0));
    this.timer ??= setTimeout(() => this.flush(), FLUSH_MS);
  }

  /** Also called when there is a connection again. */
  flush(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    const socket = this.current();
    if (socket === null) return;
    const marks = [...this.wanted];
    this.wanted.clear();
    for (const [group_id, seq] of marks) {
      socket.request({ type: "message.read", group_id, seq }).catch(() => {
        // The next look at the group says it again.
        if (!this.wanted.has(group_id)) this.wanted.set(group_id, seq);
      });
    }
  }
}
