/** Pulls what cursors miss: one `POST /sync` at a time for all groups that are due. It never gives up, and waits longer after failures. */
import type { Http } from "../api/client";
import { AppError } from "../api/errors";
import { Waits } from "../wire/backoff";
import type { Inbox } from "./inbox";

const RETRY = { base_ms: 500, max_ms: 15_000, jitter: 0.5 };
const PAGE = 100;
const GROUPS_MAX = 200;

export class Puller {
  /** Group → when it is due, in ms since 1970. */
  private readonly due = new Map<string, number>();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private running = false;
  private readonly waits = new Waits(RETRY);

  constructor(
    private readonly http: Http,
    private readonly inbox: Inbox,
    /** A group is not ours any more. */
    private readonly onUnknown: (groupId: string) => void,
  ) {}

  /** Pull after a random part of `withinMs`; asking again never delays a group. */
  want(groupId: string, withinMs: number): void {
    const at = Date.now() + Math.random() * withinMs;
    this.due.set(groupId, Math.min(at, this.due.get(groupId) ?? at));
    this.schedule(0);
  }

  private schedule(atLeastMs: number): void {
    if (this.running || this.due.size === 0) return;
    clearTimeout(this.timer);
    const next = Math.min(...this.due.values()) - Date.now();
    this.timer = setTimeout(() => void this.run(), Math.max(atLeastMs, next, 0));
  }

  private async run(): Promise<void> {
    this.running = true;
    const now = Date.now();
    const groups = [...this.due].filter(([, at]) => at <= now).map(([id]) => id);
    const asked = groups.slice(0, GROUPS_MAX);
    for (const id of asked) this.due.delete(id);
    let waitMs = 0;
    try {
      if (await this.pull(asked)) this.waits.reset();
      else waitMs = this.waits.next();
    } catch (error) {
      waitMs = this.waits.next(error instanceof AppError ? error.retryAfterMs : null);
    }
    for (const id of asked) if (this.inbox.get(id)?.wantsPull === true) this.due.set(id, Date.now());
    this.running = false;
    this.schedule(waitMs);
  }

  /** True: some group moved on, or misses nothing now. */
  private async pull(ids: readonly string[]): Promise<boolean> {
    const cursors = new Map(ids.map((id) => [id, this.inbox.get(id)]));
    const pulls = new Map(
      [...cursors].flatMap(([id, cursor]) => (cursor?.wantsPull ? [[id, cursor.beginPull()]] : [])),
    );
    if (pulls.size === 0) return true;
    const groups = Object.fromEntries([...pulls].map(([id, pull]) => [id, { seq: pull.after }]));
    const { client, ask } = this.http;
    const answer = await ask(client.POST("/api/v1/sync", { body: { groups, limit: PAGE } }));
    let progress = false;
    for (const [id, pull] of pulls) {
      const cursor = this.inbox.get(id);
      const delta = answer.groups[id];
      if (cursor === undefined || cursor !== cursors.get(id)) progress = true;
      else if (delta === undefined) {
        this.onUnknown(id);
        progress = true;
      } else {
        this.inbox.onPulled(id, pull, delta.items, !delta.has_more);
        progress ||= !cursor.wantsPull || cursor.have > pull.after;
      }
    }
    return progress;
  }
}
