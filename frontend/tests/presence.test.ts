import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Http } from "../src/api/client";
import { Presence } from "../src/store/presence";

const GROUP = "7";
const FEATURES = ["resume", "presence"];
const MINUTE_MS = 60_000;

interface Answer {
  online: number;
  ts: number;
  members: { user_id: string; state: "online" | "offline"; last_seen: number | null }[] | null;
}

let answer: Answer;
let asked: number;
let presence: Presence;

beforeEach(() => {
  vi.useFakeTimers();
  vi.spyOn(Math, "random").mockReturnValue(0.5);
  vi.stubGlobal("document", { hidden: false });
  asked = 0;
  answer = {
    online: 1,
    ts: 100,
    members: [
      { user_id: "1", state: "offline", last_seen: null },
      { user_id: "2", state: "online", last_seen: null },
      { user_id: "3", state: "offline", last_seen: MINUTE_MS },
    ],
  };
  const http = {
    client: { GET: () => null },
    ask: () => {
      asked += 1;
      return Promise.resolve(answer);
    },
  } as unknown as Http;
  presence = new Presence(http, () => "1");
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

async function opened(): Promise<void> {
  presence.open(GROUP);
  presence.onHello(FEATURES);
  await vi.advanceTimersByTimeAsync(1);
}

function said(userId: string, state: "online" | "offline", ts: number): void {
  const last_seen = state === "online" ? null : 2 * MINUTE_MS;
  presence.onEvent({ type: "presence", user_id: userId, state, last_seen, ts });
}

test("events go on from what was read, and older ones are old news", async () => {
  await opened();
  // Who looks is online, whatever the server has heard so far.
  expect(presence.count(GROUP)).toBe(2);
  expect(presence.of("3")).toEqual(expect.objectContaining({ online: false, lastSeen: MINUTE_MS }));
  said("3", "online", 99);
  said("2", "offline", 99);
  expect(presence.count(GROUP)).toBe(2);
  said("3", "online", 101);
  expect(presence.count(GROUP)).toBe(3);
  said("3", "offline", 103);
  said("3", "online", 102);
  expect(presence.of("3")).toEqual(expect.objectContaining({ online: false, lastSeen: 2 * MINUTE_MS }));
});

test("a large group has a number and nobody's state", async () => {
  answer = { online: 412, ts: 100, members: null };
  await opened();
  expect(presence.count(GROUP)).toBe(412);
  presence.onCount(GROUP, 413);
  expect(presence.count(GROUP)).toBe(413);
  expect(presence.of("2")).toBeUndefined();
  expect(presence.of("1")).toBeUndefined();
});

test("nothing is asked of a server that does not tell, nor by a page that nobody sees", async () => {
  presence.open(GROUP);
  presence.onHello(["resume"]);
  await vi.advanceTimersByTimeAsync(10 * MINUTE_MS);
  expect(asked).toBe(0);
  expect(presence.count(GROUP)).toBeNull();
  vi.stubGlobal("document", { hidden: true });
  presence.onHello(FEATURES);
  await vi.advanceTimersByTimeAsync(10 * MINUTE_MS);
  expect(asked).toBe(0);
});

test("an open group is read again: now and then, and when somebody joins", async () => {
  await opened();
  expect(asked).toBe(1);
  presence.onMembers("8");
  presence.onMembers(GROUP);
  presence.onMembers(GROUP);
  await vi.advanceTimersByTimeAsync(2_000);
  expect(asked).toBe(2);
  await vi.advanceTimersByTimeAsync(2 * MINUTE_MS);
  expect(asked).toBe(3);
  presence.open(null);
  await vi.advanceTimersByTimeAsync(10 * MINUTE_MS);
  expect(asked).toBe(3);
});

test("nothing is read any more about a group one is out of", async () => {
  await opened();
  expect(presence.count(GROUP)).toBe(2);
  presence.drop(GROUP);
  expect(presence.count(GROUP)).toBeNull();
  await vi.advanceTimersByTimeAsync(10 * MINUTE_MS);
  expect(asked).toBe(1);
});
