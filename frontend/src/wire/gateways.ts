/** Where to open the next WebSocket: at the gateway the server names, at another one after a failure or when it sent us away. */
import type { Http } from "../api/client";
import type { ServerEvent } from "./frames";
import { DRAIN, Socket } from "./socket";

/** An answer that takes longer is not worth it: the last address may work meanwhile. */
const ASK_MS = 3_000;
const LOOPBACK = ["localhost", "127.0.0.1", "[::1]"];

export class Gateways {
  private url: string;
  private node = "";
  private failed: string | undefined;

  constructor(
    private readonly http: Http,
    private readonly page: URL,
    private readonly connect = Socket.open,
  ) {
    this.url = this.own();
  }

  /** Rejects with `Closed`. */
  async open(onEvent: (event: ServerEvent) => void): Promise<Socket> {
    await this.ask();
    try {
      const socket = await this.connect(this.url, onEvent);
      const node = socket.hello.node;
      this.node = node;
      this.failed = undefined;
      socket.whenClosed().then((closed) => {
        // An api may not know yet that this gateway goes.
        if (closed.code === DRAIN) this.failed = node;
      });
      return socket;
    } catch (closed) {
      this.failed = this.node || undefined;
      throw closed;
    }
  }

  /** While the API does not answer, the last address stays: the gateways may be there all the same. */
  private async ask(): Promise<void> {
    try {
      const query = this.failed === undefined ? {} : { not: this.failed };
      const named = await Promise.race([
        this.http.ask(this.http.client.GET("/api/v1/gateway", { params: { query } })),
        new Promise<never>((_, reject) => setTimeout(reject, ASK_MS)),
      ]);
      this.url = this.reachable(named.url);
      this.node = named.node;
    } catch {
      return;
    }
  }

  /** A server that was never told its address cannot know that a proxy in front of it speaks TLS. */
  private reachable(named: string): string {
    const url = new URL(named);
    if (url.protocol === "ws:" && this.page.protocol === "https:") return this.own();
    if (!LOOPBACK.includes(url.hostname)) return named;
    if (!LOOPBACK.includes(this.page.hostname)) return this.own();
    url.hostname = this.page.hostname;
    return url.href;
  }

  private own(): string {
    return `${this.page.origin.replace(/^http/, "ws")}/ws`;
  }
}
