/** The HTTP API, typed from its OpenAPI document. Errors are `AppError`; a credential that is refused leads to the login page. */
import createClient from "openapi-fetch";
import { AppError, ConnectionLost, toAppError } from "./errors";
import type { paths } from "./schema";

/** Above the server's own `send_timeout_s`, so that its answer wins. */
const TIMEOUT_MS = 15_000;

const SAFE_METHODS = ["GET", "HEAD", "OPTIONS"];

export type Http = ReturnType<typeof createHttp>;

interface Answer<T> {
  readonly data?: T;
  readonly error?: unknown;
  readonly response: Response;
}

export function createHttp(onSignedOut: () => void) {
  let tellFirst: (token: string) => void = () => undefined;
  let csrfToken = new Promise<string>((resolve) => {
    tellFirst = resolve;
  });
  const client = createClient<paths>({
    baseUrl: location.origin,
    credentials: "same-origin",
    fetch: async (request) => {
      const signal = AbortSignal.timeout(TIMEOUT_MS);
      // People may press a button before `GET /me` has answered.
      if (!SAFE_METHODS.includes(request.method))
        request.headers.set("X-CSRF-Token", await Promise.race([csrfToken, whenAborted(signal)]));
      return fetch(request, { signal });
    },
  });

  /** The answer's body. Throws AppError. */
  async function ask<T>(asked: Promise<Answer<T>>): Promise<T> {
    let answer: Answer<T>;
    try {
      answer = await asked;
    } catch {
      throw new ConnectionLost("unknown");
    }
    const { data, error, response } = answer;
    if (response.ok) return data as T;
    if (response.status === 401) onSignedOut();
    const wait = Number(response.headers.get("Retry-After"));
    const body = (error as { error?: unknown } | undefined)?.error;
    throw body === undefined
      ? new AppError(response.status === 503 ? "busy" : "internal", response.statusText, "unknown", wait * 1000 || null)
      : toAppError(body, wait * 1000 || null);
  }

  /** Every call that changes something carries the session's token, which `GET /me` tells, and waits for the first one. */
  function useCsrfToken(token: string): void {
    tellFirst(token);
    csrfToken = Promise.resolve(token);
  }

  return { client, ask, useCsrfToken };
}

function whenAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }));
}
