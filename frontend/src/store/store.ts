/** Everything the page knows, put together: what comes down, what goes up, and the connection between. */
import { batch, signal } from "@preact/signals";
import type { Http } from "../api/client";
import { AppError } from "../api/errors";
import type { Group, Me, Message, User } from "../api/types";
import type { Hello, ServerEvent } from "../wire/frames";
import { Gateways } from "../wire/gateways";
import type { Socket } from "../wire/socket";
import { Groups } from "./groups";
import { History } from "./history";
import { Inbox } from "./inbox";
import { Kept } from "./kept";
import { ReadMarks } from "./marks";
import { Outbox } from "./outbox";
import { People } from "./people";
import { Presence } from "./presence";
import { Puller } from "./puller";
import { Session } from "./session";
import { Keep } from "./storage";

const GROUPS_PAGE = 100;
/** The server's own bound of groups per user. */
const GROUPS_MAX = 1_000;
const SYNC_GROUPS = 500;
/** After a reconnect the list is read again at a random moment within this time. */
const REFRESH_WITHIN_MS = 3_000;
const TYPING_EVERY_MS = 3_000;

/** What happened that a person should be told of. */
export type Notice =
  | { readonly type: "message"; readonly group: Group; readonly message: Message }
  | { readonly type: "left"; readonly group: Group; readonly reason: string };

type MemberEvent = Extract<ServerEvent, { type: "group.member" }>;

export class Store {
  readonly me = signal<User>({ id: "", username: "", display_name: "" });
  readonly bodyMax = signal(2_000);
  readonly groups = new Groups(() => this.me.value.id);
  readonly people: People;
  readonly presence: Presence;
  readonly history: History;
  readonly outbox: Outbox;
  readonly session: Session;
  /** Raised with every change of a group's members, so that an open list follows. */
  readonly memberEvent = signal<MemberEvent | null>(null);
  drafts = new Map<string, string>();
  onNotice: (notice: Notice) => void = () => undefined;

  private readonly inbox: Inbox;
  private readonly puller: Puller;
  private readonly marks: ReadMarks;
  private kept = new Kept(new Keep(""));
  private epoch: string | null = null;
  private sessionId: string | null = null;
  private skewMs = 0;
  private leaving = false;
  private focused: string | null = null;
  private expected: string | null = null;
  private refreshTimer: ReturnType<typeof setTimeout> | undefined;
  private lastTyping = 0;

  constructor(
    readonly http: Http,
    private readonly onSignedOut: () => void,
    /** Somebody else has logged in in this browser meanwhile. */
    private readonly onOtherUser: () => void,
  ) {
    this.people = new People(http);
    this.presence = new Presence(http, () => this.me.value.id);
    this.inbox = new Inbox(
      (groupId, messages) => this.onMessages(groupId, messages),
      (groupId, withinMs) => this.puller.want(groupId, withinMs),
    );
    this.puller = new Puller(http, this.inbox, (groupId) => {
      this.inbox.drop(groupId);
      this.refreshSoon();
    });
    this.history = new History(
      http,
      (groupId) => this.groups.get(groupId)?.lastSeq ?? 0,
      (groupId, messages) => this.outbox.seen(groupId, messages),
    );
    const gateways = new Gateways(http, new URL(location.href));
    this.session = new Session({
      open: (onEvent) => gateways.open(onEvent),
      prepare: (socket, hello) => this.prepare(socket, hello),
      onEvent: (event) => this.onEvent(event),
      // A browser does not say that the upgrade was refused with 401; any call does, and leads to the login page.
      onRefused: async () => {
        await this.readMe().catch(() => undefined);
      },
    });
    this.marks = new ReadMarks(() => this.session.current);
    this.outbox = new Outbox(
      () => this.session.online(),
      (groupId, seq) => this.history.of(groupId).loaded.value && seq <= (this.inbox.get(groupId)?.have ?? 0),
      (pending) => this.kept.setOutbox(pending),
    );
  }

  /** Who we are, and what was kept for us; `groupId`: the group that will be on screen first. Throws AppError. */
  async start(groupId: string | null): Promise<void> {
    this.expected = groupId;
    await this.readMe();
    this.kept = new Kept(new Keep(this.me.value.id));
    this.drafts = this.kept.drafts();
    void this.stayConnected();
    this.outbox.restore(this.kept.outbox());
  }

  wake(): void {
    this.session.wake();
  }

  /** We are connected elsewhere, and only the newest connection stays: be the newest. Never by itself, or two pages would fight. */
  connectHere(): void {
    if (this.session.state.value.name === "ended") void this.stayConnected();
  }

  /** The server's time, which decides; the clock here may be wrong. */
  now(): number {
    return Date.now() + this.skewMs;
  }

  // What a person does

  /** The group on screen. */
  focus(groupId: string | null): void {
    this.focused = groupId;
    this.presence.open(groupId);
    this.session.current?.request({ type: "group.focus", group_id: groupId }).catch(() => undefined);
    if (groupId !== null) void this.history.open(groupId);
  }

  read(groupId: string, seq: number): void {
    const view = this.groups.get(groupId);
    if (view === undefined || seq <= view.readSeq) return;
    this.groups.onRead(groupId, seq);
    this.marks.mark(groupId, seq);
  }

  /** False: too many wait already. */
  send(groupId: string, body: string): boolean {
    // Who goes on writing after a message types anew.
    this.lastTyping = 0;
    return this.outbox.send(groupId, body);
  }

  typing(groupId: string): void {
    if (Date.now() - this.lastTyping < TYPING_EVERY_MS) return;
    this.lastTyping = Date.now();
    this.session.current?.typing(groupId);
  }

  draft(groupId: string, text: string): void {
    if (text === "") this.drafts.delete(groupId);
    else this.drafts.set(groupId, text);
    this.kept.setDraft(groupId, text);
  }

  /** The answer to our own creating, joining or changing. */
  learn(group: Group): void {
    this.groups.learn(group);
    this.inbox.add(group.id, group.last_seq);
    void this.previews([group]);
  }

  /** We left, by our own doing. */
  gone(groupId: string): void {
    const view = this.groups.get(groupId);
    if (view !== undefined && this.groups.onLeft(groupId, view.group.version)) this.forgetGroup(groupId);
  }

  rename(user: User): void {
    this.me.value = user;
    this.people.learn([user]);
  }

  /** End the session, and leave nothing in this browser. The news that it ended may be faster than the answer. */
  async logOut(): Promise<void> {
    this.leaving = true;
    try {
      await this.http.ask(this.http.client.POST("/api/v1/auth/logout"));
    } catch (error) {
      // Refused: it has ended already.
      if (!(error instanceof AppError) || error.code !== "unauthorized") {
        this.leaving = false;
        throw error;
      }
    }
    this.forgetAll();
    // The server closes the connection too: both lead to the login page, and only one of them may go there.
    this.onSignedOut();
  }

  // What comes down

  private async stayConnected(): Promise<void> {
    const closed = await this.session.run();
    if (closed.code !== 4501) return;
    if (this.leaving) this.forgetAll();
    this.onSignedOut();
  }

  private forgetAll(): void {
    this.kept.close();
    Keep.forget();
  }

  private async readMe(): Promise<void> {
    const me: Me = await this.http.ask(this.http.client.GET("/api/v1/me"));
    this.insistOn(me.id);
    this.http.useCsrfToken(me.csrf_token ?? "");
    this.rename({ id: me.id, username: me.username, display_name: me.display_name });
  }

  /** What was written here must not go out under another name: all tabs of a browser share one session. */
  private insistOn(userId: string): void {
    if (this.me.value.id === "" || this.me.value.id === userId) return;
    this.onOtherUser();
    throw new AppError("unauthorized", "this browser belongs to somebody else now");
  }

  private async prepare(socket: Socket, hello: Hello): Promise<void> {
    this.insistOn(hello.user_id);
    // Logged in again in another tab: calls need the token of the new session.
    if (this.sessionId !== null && this.sessionId !== hello.session) await this.readMe();
    this.sessionId = hello.session;
    this.bodyMax.value = hello.limits.body_code_points;
    this.skewMs = hello.server_time - Date.now();
    this.presence.onHello(hello.features);
    const known = this.epoch === hello.epoch;
    if (!known) {
      if (this.epoch !== null) {
        this.inbox.forget();
        this.groups.forget();
        this.history.forget();
      }
      const first = this.focused ?? this.expected;
      // Beside the list of groups: the conversation need not wait for it.
      const opened = first === null ? null : this.history.open(first);
      await this.refresh();
      this.epoch = hello.epoch;
      if (first !== null) void opened?.then(() => this.history.atLeast(first, this.inbox.get(first)?.have ?? null));
    }
    await this.resume(socket, hello.limits.resume_groups);
    if (this.focused !== null) await socket.request({ type: "group.focus", group_id: this.focused });
    if (known) this.refreshSoon();
    this.marks.flush();
  }

  private async resume(socket: Socket, atOnce: number): Promise<void> {
    const pulls = [...this.inbox.beginPulls()];
    for (let start = 0; start < pulls.length; start += atOnce) {
      const asked = new Map(pulls.slice(start, start + atOnce));
      const groups = Object.fromEntries([...asked].map(([id, pull]) => [id, { seq: pull.after }]));
      const answer = await socket.request<{ groups: Parameters<Inbox["onResumed"]>[1] }>({ type: "resume", groups });
      for (const groupId of this.inbox.onResumed(asked, answer.groups)) {
        this.history.drop(groupId);
        this.refreshSoon();
      }
    }
  }

  private refreshSoon(): void {
    this.refreshTimer ??= setTimeout(async () => {
      this.refreshTimer = undefined;
      await this.refresh().catch(() => this.refreshSoon());
    }, Math.random() * REFRESH_WITHIN_MS);
  }

  private async refresh(): Promise<void> {
    const { client, ask } = this.http;
    const known = [...this.groups.views.value.keys()];
    const found: Group[] = [];
    let cursor: string | null = null;
    do {
      const query: { limit: number; cursor?: string } = { limit: GROUPS_PAGE, ...(cursor === null ? {} : { cursor }) };
      const page: { readonly items: readonly Group[]; readonly next: string | null } = await ask(
        client.GET("/api/v1/groups", { params: { query } }),
      );
      found.push(...page.items);
      cursor = page.next;
    } while (cursor !== null && found.length < GROUPS_MAX);
    for (const groupId of this.groups.replace(found, known)) this.forgetGroup(groupId);
    for (const group of found) this.inbox.add(group.id, group.last_seq);
    void this.previews(found);
  }

  /** The newest message of each group whose last one is not known. */
  private async previews(groups: readonly Group[]): Promise<void> {
    const lacking = groups.filter((group) => {
      const view = this.groups.get(group.id);
      return view !== undefined && view.lastSeq > 0 && view.lastMessage === null;
    });
    for (let start = 0; start < lacking.length; start += SYNC_GROUPS) {
      const some = lacking.slice(start, start + SYNC_GROUPS);
      const cursors = Object.fromEntries(some.map((group) => [group.id, { seq: Math.max(0, group.last_seq - 1) }]));
      const { client, ask } = this.http;
      const answer = await ask(client.POST("/api/v1/sync", { body: { groups: cursors, limit: 1 } })).catch(() => null);
      batch(() => {
        for (const [groupId, delta] of Object.entries(answer?.groups ?? {}))
          this.groups.onMessages(groupId, delta.items);
      });
    }
  }

  private onEvent(event: ServerEvent): void {
    switch (event.type) {
      case "messages":
        this.inbox.onPacket(event.group_id, event.prev_seq, event.items);
        break;
      case "gap":
      case "resync":
        this.inbox.onGap(event.group_id, event.to_seq, event.pull_within_ms);
        break;
      case "group.joined":
        if (this.groups.onJoined(event.group)) {
          this.inbox.add(event.group.id, event.group.last_seq);
          void this.previews([event.group]);
        }
        break;
      case "group.updated":
        if (!this.groups.onUpdated(event.group)) this.refreshSoon();
        break;
      case "group.member":
        this.people.learn([event.user]);
        this.groups.onMember(event);
        this.memberEvent.value = event;
        if (event.change === "joined" || event.role === null) this.presence.onMembers(event.group_id);
        break;
      case "group.left":
      case "group.deleted":
        this.onLeft(event.group_id, event.version, event.type === "group.left" ? event.reason : "disbanded");
        break;
      case "typing":
        if (event.user_id !== this.me.value.id) this.people.onTyping(event.group_id, event.user_id);
        break;
      case "read":
        if (event.user_id === this.me.value.id) this.groups.onRead(event.group_id, event.seq);
        break;
      case "presence":
        this.presence.onEvent(event);
        break;
      case "presence.count":
        this.presence.onCount(event.group_id, event.online);
        break;
      default:
        break;
    }
  }

  private onLeft(groupId: string, version: number, reason: string): void {
    const group = this.groups.get(groupId)?.group;
    if (group === undefined || !this.groups.onLeft(groupId, version)) return;
    this.forgetGroup(groupId);
    if (reason !== "left") this.onNotice({ type: "left", group, reason });
  }

  private forgetGroup(groupId: string): void {
    this.inbox.drop(groupId);
    this.history.drop(groupId);
    this.outbox.drop(groupId);
    this.presence.drop(groupId);
    this.draft(groupId, "");
  }

  private onMessages(groupId: string, messages: readonly Message[]): void {
    this.groups.onMessages(groupId, messages);
    this.history.append(groupId, messages);
    this.outbox.seen(groupId, messages);
    for (const message of messages) this.people.stopTyping(groupId, message.sender_id);
    const group = this.groups.get(groupId)?.group;
    const newest = messages.findLast((message) => message.sender_id !== this.me.value.id);
    if (group !== undefined && newest !== undefined) this.onNotice({ type: "message", group, message: newest });
  }
}
