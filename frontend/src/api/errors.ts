/** What can go wrong when the server is asked, over HTTP or WebSocket. */

/** `none`: this attempt will never appear. `unknown`: it may have been done; a send is repeated with the same id. */
export type Outcome = "none" | "unknown";

export class AppError extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly outcome: Outcome = "none",
    readonly retryAfterMs: number | null = null,
  ) {
    super(message);
  }
}

/** The server cannot be reached, or the connection ended before the answer. */
export class ConnectionLost extends AppError {
  constructor(outcome: Outcome) {
    super("unreachable", "no connection to the server", outcome);
  }
}

interface ErrorFields {
  readonly code?: unknown;
  readonly message?: unknown;
  readonly outcome?: unknown;
  readonly retry_after_ms?: unknown;
}

/** An error frame, or the `error` of an HTTP answer; an unknown shape counts as `internal`. */
export function toAppError(found: unknown, retryAfterMs: number | null = null): AppError {
  const fields = (typeof found === "object" && found !== null ? found : {}) as ErrorFields;
  const code = typeof fields.code === "string" ? fields.code : "internal";
  const message = typeof fields.message === "string" ? fields.message : "";
  const outcome = fields.outcome === "none" ? "none" : "unknown";
  const after = typeof fields.retry_after_ms === "number" ? fields.retry_after_ms : retryAfterMs;
  return new AppError(code, message, outcome, after);
}
