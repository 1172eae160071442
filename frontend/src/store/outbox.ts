/** Sends until their outcome is known: the same `client_msg_id` again after a lost connection, a timeout or a busy server. */
import { signal } from "@preact/signals";
import { AppError, ConnectionLost } from "../api/errors";
import type { Message } from "../api/types";
import { uuid } from "../uuid";
import { Waits } from "../wire/backoff";
import type { Sent } from "../wire/frames";
import type { Socket } from "../wire/socket";

const RETRY = { base_ms: 250, max_ms: 5_000, jitter: 1 };
/** So long a server that answers may refuse before a person is asked; time without a connection does not count. */
const GIVE_UP_MS = 60_000;
/** Unsent messages of one group; more would mean that nobody looks. */
export const MAX_PENDING_PER_GROUP = 200;

export type SendState = "sending" | "sent" | "failed" | "unknown";

export interface Pending {
  readonly groupId: string;
  readonly clientMsgId: string;
  readonly body: string;
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly state: SendState;
  /** Whether some attempt may have been stored. */
  readonly unknown: boolean;
  /** Why it failed: an error code of the server. */
  readonly reason?: string;
}

const REPEATED = new Set(["busy", "timeout", "internal", "rate_limited", "unreachable"]);

export class Outbox {
  /** In sending order, by group. */
  readonly pending = signal<ReadonlyMap<string, readonly Pending[]>>(new Map());
  private readonly running = new Set<string>();
  private lastAt = 0;

  constructor(
    private readonly online: () => Promise<Socket>,
    /** Whether the messages of a group up to `seq` have been read here already. */
    private readonly passed: (groupId: string, seq: number) => boolean,
    private readonly save: (pending: readonly Pending[]) => void,
    private readonly newId: () => string = uuid,
  ) {}

  /** What was unsent when the page was left goes on. */
  restore(saved: readonly Pending[]): void {
    for (const one of saved) {
      this.lastAt = Math.max(this.lastAt, one.at);
      this.put(one.state === "failed" || one.state === "unknown" ? one : { ...one, state: "sending" });
    }
    for (const groupId of this.pending.value.keys()) void this.work(groupId);
  }

  /** False: too many wait already. */
  send(groupId: string, body: string): boolean {
    if (this.of(groupId).length >= MAX_PENDING_PER_GROUP) return false;
    // Strictly rising, since the order is told by it when the page is opened again.
    this.lastAt = Math.max(Date.now(), this.lastAt + 1);
    this.put({ groupId, clientMsgId: this.newId(), body, at: this.lastAt, state: "sending", unknown: false });
    void this.work(groupId);
    return true;
  }

  retry(groupId: string, clientMsgId: string): void {
    const { reason: _, ...found } = this.find(groupId, clientMsgId) ?? {};
    if (!("state" in found)) return;
    this.put({ ...found, state: "sending" });
    void this.work(groupId);
  }

  discard(groupId: string, clientMsgId: string): void {
    this.remove(groupId, (one) => one.clientMsgId === clientMsgId);
  }

  /** No member any more: nothing of it can be sent. */
  drop(groupId: string): void {
    this.remove(groupId, () => true);
  }

  /** Messages can be read now: own ones among them are no longer on their way. */
  seen(groupId: string, messages: readonly Message[]): void {
    if (this.of(groupId).length === 0) return;
    const ids = new Set(messages.map((message) => message.client_msg_id));
    this.remove(groupId, (one) => ids.has(one.clientMsgId));
  }

  of(groupId: string): readonly Pending[] {
    return this.pending.value.get(groupId) ?? [];
  }

  /** One unacked send per group, so that a repeat cannot be overtaken. */
  private async work(groupId: string): Promise<void> {
    if (this.running.has(groupId)) return;
    this.running.add(groupId);
    try {
      for (;;) {
        const next = this.of(groupId).find((one) => one.state === "sending");
        if (next === undefined) return;
        await this.untilKnown(next);
      }
    } finally {
      this.running.delete(groupId);
    }
  }

  private async untilKnown({ groupId, clientMsgId, body }: Pending): Promise<void> {
    const waits = new Waits(RETRY);
    let refusedSince: number | null = null;
    for (;;) {
      const socket = await this.online();
      // Seen meanwhile, or discarded.
      const now = this.find(groupId, clientMsgId);
      if (now === undefined) return;
      try {
        const frame = {
          type: "message.send",
          group_id: groupId,
          client_msg_id: clientMsgId,
          kind: "text",
          body,
        } as const;
        const { seq } = await socket.request<Sent>(frame);
        if (this.passed(groupId, seq)) this.discard(groupId, clientMsgId);
        else this.change(groupId, clientMsgId, { state: "sent" });
        return;
      } catch (caught) {
        const error = caught instanceof AppError ? caught : new AppError("internal", String(caught), "unknown");
        const unknown = now.unknown || error.outcome === "unknown";
        this.change(groupId, clientMsgId, { unknown });
        refusedSince ??= Date.now();
        if (error instanceof ConnectionLost) {
          refusedSince = null;
          continue;
        }
        if (!REPEATED.has(error.code) || Date.now() - refusedSince > GIVE_UP_MS) {
          this.change(groupId, clientMsgId, { state: unknown ? "unknown" : "failed", reason: error.code });
          return;
        }
        const waitMs = waits.next(error.retryAfterMs);
        await new Promise((resolve) => setTimeout(resolve, waitMs));
      }
    }
  }

  private find(groupId: string, clientMsgId: string): Pending | undefined {
    return this.of(groupId).find((one) => one.clientMsgId === clientMsgId);
  }

  private change(groupId: string, clientMsgId: string, fields: Partial<Pending>): void {
    const found = this.find(groupId, clientMsgId);
    if (found !== undefined) this.put({ ...found, ...fields });
  }

  private put(pending: Pending): void {
    const list = this.of(pending.groupId);
    const known = list.some((one) => one.clientMsgId === pending.clientMsgId);
    const changed = known
      ? list.map((one) => (one.clientMsgId === pending.clientMsgId ? pending : one))
      : [...list, pending];
    this.write(pending.groupId, changed);
  }

  private remove(groupId: string, which: (one: Pending) => boolean): void {
    const list = this.of(groupId);
    const left = list.filter((one) => !which(one));
    if (left.length !== list.length) this.write(groupId, left);
  }

  private write(groupId: string, list: readonly Pending[]): void {
    const all = new Map(this.pending.value);
    if (list.length === 0) all.delete(groupId);
    else all.set(groupId, list);
    this.pending.value = all;
    this.save([...all.values()].flat().filter((one) => one.state !== "sent"));
  }
}
