import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Http } from "../src/api/client";
import { AppError } from "../src/api/errors";
import { History } from "../src/store/history";
import { messages, seqs } from "./make";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

/** A server with so many messages; the first answers are the given errors. */
function serving(newest: number | (() => number), errors: AppError[]): History {
  const headOf = typeof newest === "number" ? () => newest : newest;
  const http = {
    client: { GET: (_: string, asked: unknown) => asked },
    ask: async (asked: { params: { query: { before_seq?: number; after_seq?: number; limit: number } } }) => {
      const error = errors.shift();
      if (error !== undefined) throw error;
      const head = headOf();
      const { before_seq = head + 1, after_seq, limit } = asked.params.query;
      if (after_seq !== undefined) return { items: messages(after_seq + 1, Math.min(head, after_seq + limit)) };
      return { items: messages(Math.max(1, before_seq - limit), before_seq - 1) };
    },
  } as unknown as Http;
  return new History(http, headOf, () => undefined);
}

test("pages join without a hole, up to the beginning", async () => {
  const history = serving(180, []);
  await history.open("7");
  await history.older("7");
  await history.older("7");
  await history.older("7");
  expect(seqs(history.of("7").items.value)).toEqual(seqs(messages(1, 180)));
});

test("too many calls are a wait, not a failure", async () => {
  const history = serving(10, [new AppError("rate_limited", "", "none", 700), new AppError("busy", "", "none", 500)]);
  const opened = history.open("7");
  await vi.advanceTimersByTimeAsync(1_300);
  await opened;
  const timeline = history.of("7");
  expect([timeline.failed.value, timeline.loading.value, timeline.last]).toEqual([false, null, 10]);
});

test("a failure is told, and trying again works", async () => {
  const history = serving(10, [new AppError("unreachable", "")]);
  await history.open("7");
  expect(history.of("7").failed.value).toBe(true);
  await history.open("7");
  expect([history.of("7").failed.value, history.of("7").last]).toEqual([false, 10]);
});

test("after a jump one reads on to the newest", async () => {
  const history = serving(300, []);
  await history.open("7");
  await history.around("7", 100);
  const timeline = history.of("7");
  expect([timeline.first, timeline.last, timeline.live.value]).toEqual([51, 150, false]);
  await history.newer("7");
  await history.newer("7");
  expect([timeline.first, timeline.last, timeline.live.value]).toEqual([51, 300, true]);
});

test("of two jumps in a row the second one counts", async () => {
  const history = serving(() => 1000, []);
  await Promise.all([history.around("7", 100), history.around("7", 600)]);
  const timeline = history.of("7");
  expect([timeline.first, timeline.last]).toEqual([551, 650]);
});

test("a page that was read too early is read again, and one of a foreign group is forgotten", async () => {
  let head = 60;
  const history = serving(() => head, []);
  await history.open("7");
  head = 62;
  await history.atLeast("7", 60);
  expect(history.of("7").last).toBe(60);
  await history.atLeast("7", 62);
  expect(history.of("7").last).toBe(62);
  await history.atLeast("7", null);
  expect(history.of("7").loaded.value).toBe(false);
});
