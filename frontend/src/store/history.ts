/** Reads pages of history into timelines: the newest, older, newer, or around a message. */
import type { Http } from "../api/client";
import { AppError } from "../api/errors";
import type { Message } from "../api/types";
import { Timeline } from "./timeline";

/** The first page is what a screen shows and a little more; those one scrolls to are the largest the server gives. */
const FIRST_PAGE = 50;
const PAGE = 100;
/** Who scrolls fast through years meets the limit of calls: the page waits as long as it is told, so often in a row. */
const WAITS_MAX = 5;
/** Timelines that are kept; the one not looked at for longest is read again when it is needed. */
const KEPT = 20;

export class History {
  private readonly timelines = new Map<string, Timeline>();
  private readonly reading = new WeakMap<Timeline, Promise<void>>();

  constructor(
    private readonly http: Http,
    private readonly headOf: (groupId: string) => number,
    private readonly onRead: (groupId: string, messages: readonly Message[]) => void,
  ) {}

  /** The timeline of a group, made when there is none. */
  of(groupId: string): Timeline {
    const timeline = this.timelines.get(groupId) ?? new Timeline();
    this.timelines.delete(groupId);
    this.timelines.set(groupId, timeline);
    for (const oldest of this.timelines.keys()) {
      if (this.timelines.size <= KEPT) break;
      this.timelines.delete(oldest);
    }
    return timeline;
  }

  /** Messages became readable: they belong to the timeline if it was read and is at the end. */
  append(groupId: string, messages: readonly Message[]): void {
    const timeline = this.timelines.get(groupId);
    if (timeline !== undefined && (timeline.loaded.value || timeline.loading.value === "page"))
      timeline.append(messages);
  }

  drop(groupId: string): void {
    this.timelines.get(groupId)?.reset();
    this.timelines.delete(groupId);
  }

  forget(): void {
    for (const timeline of this.timelines.values()) timeline.reset();
  }

  /** Show the newest messages. */
  async open(groupId: string): Promise<void> {
    const timeline = this.of(groupId);
    if (timeline.loaded.value && timeline.live.value) return;
    if (!timeline.live.value) timeline.reset();
    await this.load(groupId, timeline, "page", async () =>
      timeline.show(await this.page(groupId, {}, FIRST_PAGE), true),
    );
  }

  /** What was read must reach up to `seq`, from where events go on; null: the group is not ours after all. */
  async atLeast(groupId: string, seq: number | null): Promise<void> {
    const timeline = this.of(groupId);
    if (seq === null) this.drop(groupId);
    else if (timeline.live.value && timeline.last < seq) {
      timeline.reset();
      await this.open(groupId);
    }
  }

  async older(groupId: string): Promise<void> {
    const timeline = this.of(groupId);
    if (!timeline.loaded.value || !timeline.hasOlder) return;
    await this.load(groupId, timeline, "older", async () =>
      timeline.prepend(await this.page(groupId, { before_seq: timeline.first })),
    );
  }

  async newer(groupId: string): Promise<void> {
    const timeline = this.of(groupId);
    if (!timeline.loaded.value || timeline.live.value) return;
    await this.load(groupId, timeline, "newer", async () => {
      const page = await this.page(groupId, { after_seq: timeline.last });
      timeline.extend(page, this.headOf(groupId));
    });
  }

  /** Show the messages around `seq`. */
  async around(groupId: string, seq: number): Promise<void> {
    const timeline = this.of(groupId);
    // What is being read may be elsewhere.
    while (timeline.loading.value !== null) await this.reading.get(timeline);
    if (timeline.loaded.value && timeline.first <= seq && seq <= timeline.last) return;
    await this.load(groupId, timeline, "page", async () => {
      const [before, after] = await Promise.all([
        this.page(groupId, { before_seq: seq + 1 }, FIRST_PAGE),
        this.page(groupId, { after_seq: seq }, FIRST_PAGE),
      ]);
      const end = after.at(-1)?.seq ?? seq;
      timeline.live.value = false;
      timeline.show([...before, ...after], end >= this.headOf(groupId));
    });
  }

  private async load(
    groupId: string,
    timeline: Timeline,
    what: "older" | "newer" | "page",
    read: () => Promise<void>,
  ): Promise<void> {
    if (timeline.loading.value !== null) return;
    timeline.loading.value = what;
    const done = this.untilRead(groupId, timeline, read);
    this.reading.set(timeline, done);
    await done;
  }

  private async untilRead(groupId: string, timeline: Timeline, read: () => Promise<void>): Promise<void> {
    timeline.failed.value = false;
    for (let waits = 0; ; waits += 1) {
      try {
        await read();
        this.onRead(groupId, timeline.items.value);
        break;
      } catch (error) {
        const waitMs = error instanceof AppError ? error.retryAfterMs : null;
        timeline.failed.value = waitMs === null || waits >= WAITS_MAX;
        if (waitMs === null || waits >= WAITS_MAX) break;
        await new Promise((resolve) => setTimeout(resolve, waitMs));
      }
    }
    timeline.loading.value = null;
  }

  private async page(
    groupId: string,
    where: { before_seq?: number; after_seq?: number },
    limit = PAGE,
  ): Promise<readonly Message[]> {
    const params = { path: { group_id: groupId }, query: { ...where, limit } };
    return (await this.http.ask(this.http.client.GET("/api/v1/groups/{group_id}/messages", { params }))).items;
  }
}
