/** Keeps the page connected: open, hello, prepare; and again, with backoff, whenever the connection ends. */
import { signal } from "@preact/signals";
import { Waits } from "../wire/backoff";
import type { Hello, ServerEvent } from "../wire/frames";
import { type Closed, isFinal, type Socket } from "../wire/socket";

/** Until the first hello says better. */
const FIRST_BACKOFF = { base_ms: 500, max_ms: 30_000, jitter: 1 };
/** A connection that lasted so long was a good one: the next failure begins with short waits again. */
const STABLE_MS = 5_000;

export type ConnectionState =
  | { readonly name: "connecting" | "online" }
  | { readonly name: "waiting"; readonly until: number }
  | { readonly name: "ended"; readonly code: number; readonly reason: string };

export interface SessionOptions {
  readonly open: (onEvent: (event: ServerEvent) => void) => Promise<Socket>;
  /** From hello to online. A rejection closes the connection and counts as a failure to connect. */
  readonly prepare: (socket: Socket, hello: Hello) => Promise<void>;
  readonly onEvent: (event: ServerEvent) => void;
  /** After each failure: the browser does not tell why a connection was refused. */
  readonly onRefused: () => Promise<void>;
}

export class Session {
  readonly state = signal<ConnectionState>({ name: "connecting" });
  private socket: Socket | null = null;
  private opened: Socket | null = null;
  private waiters: ((socket: Socket) => void)[] = [];
  private wakeUp: () => void = () => undefined;
  /** The network came back during an attempt that began without it. */
  private woken = false;
  private drainMs: number | null = null;
  private readonly waits = new Waits(FIRST_BACKOFF);

  constructor(private readonly options: SessionOptions) {}

  /** The connection, as soon as there is one. */
  online(): Promise<Socket> {
    if (this.socket !== null && !this.socket.closed) return Promise.resolve(this.socket);
    return new Promise((resolve) => this.waiters.push(resolve));
  }

  /** The connection, if there is one. */
  get current(): Socket | null {
    return this.socket?.closed === false ? this.socket : null;
  }

  /** The network or the page came back: no more waiting, and no trust in a connection that may be dead. */
  wake(): void {
    this.woken = this.state.value.name === "connecting";
    this.wakeUp();
    this.opened?.probe();
  }

  /** Until the server says not to come back; returns how it ended. May be begun again then, if a person wants to. */
  async run(): Promise<Closed> {
    for (;;) {
      this.state.value = { name: "connecting" };
      const closed = await this.live();
      this.socket = this.opened = null;
      if (isFinal(closed)) {
        this.state.value = { name: "ended", ...closed };
        return closed;
      }
      const waitMs = this.woken ? 0 : this.waits.next(this.drainMs);
      this.drainMs = null;
      this.woken = false;
      this.state.value = { name: "waiting", until: Date.now() + waitMs };
      await this.pause(waitMs);
    }
  }

  private async live(): Promise<Closed> {
    let socket: Socket;
    try {
      socket = await this.options.open((event) => this.take(event));
    } catch (closed) {
      if (!isFinal(closed as Closed)) await this.options.onRefused();
      return closed as Closed;
    }
    this.opened = socket;
    this.waits.backoff = socket.hello.backoff;
    const started = Date.now();
    this.options.prepare(socket, socket.hello).then(
      () => this.ready(socket),
      () => socket.close(),
    );
    const closed = await socket.whenClosed();
    if (Date.now() - started >= STABLE_MS) this.waits.reset();
    return closed;
  }

  private ready(socket: Socket): void {
    if (socket.closed) return;
    this.socket = socket;
    this.woken = false;
    this.state.value = { name: "online" };
    const waiters = this.waiters;
    this.waiters = [];
    for (const resolve of waiters) resolve(socket);
  }

  private take(event: ServerEvent): void {
    if (event.type === "drain") this.drainMs = event.retry_after_ms;
    this.options.onEvent(event);
  }

  private pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.wakeUp = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
