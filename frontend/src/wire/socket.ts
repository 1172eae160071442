/** One WebSocket to a gateway: hello, requests with their answers, heartbeats. It lives once; the session opens the next one. */
import { AppError, ConnectionLost, toAppError } from "../api/errors";
import { type Hello, type Request, type ServerEvent, SUBPROTOCOL } from "./frames";

const CONNECT_TIMEOUT_MS = 10_000;
/** Above the server's own limit for an answer (10 s), so that its word counts. */
const REQUEST_TIMEOUT_MS = 12_000;
const PROBE_TIMEOUT_MS = 4_000;
const MAX_PENDING = 256;

export interface Closed {
  /** 1006 without a close frame. */
  readonly code: number;
  readonly reason: string;
}

/** The server wants this connection elsewhere. */
export const DRAIN = 4000;

/** 4500 to 4999: do not come back. */
export function isFinal(closed: Closed): boolean {
  return closed.code >= 4500 && closed.code <= 4999;
}

interface Pending {
  readonly resolve: (answer: unknown) => void;
  readonly reject: (error: AppError) => void;
  readonly timer: ReturnType<typeof setTimeout>;
}

export class Socket {
  private readonly pending = new Map<number, Pending>();
  private nextId = 1;
  private beat: ReturnType<typeof setTimeout> | undefined;
  private readonly ended: Promise<Closed>;
  private settle: (closed: Closed) => void = () => undefined;
  closed = false;

  private constructor(
    private readonly ws: WebSocket,
    readonly hello: Hello,
  ) {
    this.ended = new Promise((resolve) => {
      this.settle = resolve;
    });
    ws.onclose = (event) => this.end({ code: event.code, reason: event.reason });
  }

  /** Connect and wait for `hello`; `onEvent` gets every later event, in order. Rejects with `Closed`. */
  static open(url: string, onEvent: (event: ServerEvent) => void): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const ws = new WebSocket(url, SUBPROTOCOL);
      const timer = setTimeout(() => ws.close(), CONNECT_TIMEOUT_MS);
      let socket: Socket | undefined;
      ws.onclose = (event) => {
        clearTimeout(timer);
        reject({ code: event.code, reason: event.reason } satisfies Closed);
      };
      ws.onmessage = (event) => {
        const frame = parse(event.data);
        if (frame === null) return;
        if (socket !== undefined) socket.take(frame, onEvent);
        else if (frame.type === "hello") {
          clearTimeout(timer);
          socket = new Socket(ws, frame as unknown as Hello);
          socket.scheduleBeat(Math.random());
          resolve(socket);
        }
      };
    });
  }

  /** Settles when the connection has ended. */
  whenClosed(): Promise<Closed> {
    return this.ended;
  }

  /** The fields of the `ok`. Rejects with the server's AppError or ConnectionLost. */
  request<T = unknown>(frame: Request, timeoutMs = REQUEST_TIMEOUT_MS): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.closed) return reject(new ConnectionLost("none"));
      if (this.pending.size >= MAX_PENDING) return reject(new AppError("busy", "too many requests wait"));
      const id = this.nextId++;
      const timer = setTimeout(() => {
        this.pending.delete(id);
        reject(new AppError("timeout", "the server did not answer in time", "unknown"));
      }, timeoutMs);
      this.pending.set(id, { resolve: resolve as (answer: unknown) => void, reject, timer });
      this.ws.send(JSON.stringify({ id, ...frame }));
    });
  }

  /** Has no answer. */
  typing(groupId: string): void {
    if (!this.closed) this.ws.send(JSON.stringify({ type: "typing", group_id: groupId }));
  }

  /** The machine woke up or changed its network: find out soon whether the peer is still there. */
  probe(): void {
    this.request({ type: "ping" }, PROBE_TIMEOUT_MS).catch((error: AppError) => {
      if (error.code === "timeout") this.close();
    });
  }

  close(): void {
    this.ws.close();
    // A dead peer never answers the close; whoever waits must not wait for it.
    this.end({ code: 1006, reason: "" });
  }

  private take(frame: RawFrame, onEvent: (event: ServerEvent) => void): void {
    if (frame.type !== "ok" && frame.type !== "error") {
      onEvent(frame as unknown as ServerEvent);
      return;
    }
    const waiting = this.pending.get(frame.id as number);
    if (waiting === undefined) return;
    this.pending.delete(frame.id as number);
    clearTimeout(waiting.timer);
    if (frame.type === "ok") waiting.resolve(frame);
    else waiting.reject(toAppError(frame));
  }

  private scheduleBeat(part: number): void {
    const heartbeatMs = this.hello.heartbeat_s * 1000;
    this.beat = setTimeout(() => {
      this.request({ type: "ping" }, heartbeatMs).then(
        () => this.scheduleBeat(1),
        (error: AppError) => {
          if (error.code === "timeout") this.close();
          else if (!this.closed) this.scheduleBeat(1);
        },
      );
    }, heartbeatMs * part);
  }

  private end(closed: Closed): void {
    this.closed = true;
    this.settle(closed);
    clearTimeout(this.beat);
    for (const waiting of this.pending.values()) {
      clearTimeout(waiting.timer);
      waiting.reject(new ConnectionLost("unknown"));
    }
    this.pending.clear();
  }
}

interface RawFrame {
  readonly type: string;
  readonly id?: unknown;
}

/** One frame of a later version must not end a connection that works otherwise. */
function parse(data: unknown): RawFrame | null {
  try {
    const frame: unknown = JSON.parse(String(data));
    return typeof frame === "object" && frame !== null && typeof (frame as RawFrame).type === "string"
      ? (frame as RawFrame)
      : null;
  } catch {
    return null;
  }
}
