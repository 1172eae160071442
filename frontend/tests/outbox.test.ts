import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { AppError, ConnectionLost } from "../src/api/errors";
import { Outbox, type Pending } from "../src/store/outbox";
import type { Request } from "../src/wire/frames";
import type { Socket } from "../src/wire/socket";
import { message } from "./make";

type Answer = AppError | { readonly seq: number };

/** A connection that answers as told, and notes what it was asked. */
class Scene {
  readonly asked: Extract<Request, { type: "message.send" }>[] = [];
  saved: readonly Pending[] = [];
  passed = 0;
  answers: Answer[] = [];
  online: Promise<void> = Promise.resolve();
  private ids = 0;
  readonly socket = {
    request: async (frame: Extract<Request, { type: "message.send" }>) => {
      this.asked.push(frame);
      const answer = this.answers.shift() ?? { seq: this.asked.length };
      if (answer instanceof AppError) throw answer;
      return answer;
    },
  } as unknown as Socket;
  readonly outbox = new Outbox(
    async () => {
      await this.online;
      return this.socket;
    },
    (_, seq) => seq <= this.passed,
    (pending) => {
      this.saved = pending;
    },
    () => {
      this.ids += 1;
      return `id-${this.ids}`;
    },
  );
  get states(): string[] {
    return this.outbox.of("7").map((one) => one.state);
  }
  get sentIds(): string[] {
    return this.asked.map((frame) => frame.client_msg_id);
  }
}

let scene: Scene;
beforeEach(() => {
  vi.useFakeTimers();
  scene = new Scene();
});
afterEach(() => vi.useRealTimers());
const settle = (ms = 0) => vi.advanceTimersByTimeAsync(ms);

describe("a send", () => {
  test("stays in sight until it can be read", async () => {
    scene.outbox.send("7", "hello");
    await settle();
    expect(scene.states).toEqual(["sent"]);
    scene.outbox.seen("7", [message(1, { client_msg_id: "id-1" })]);
    expect(scene.states).toEqual([]);
  });
  test("that was read before its ack goes with the ack", async () => {
    scene.passed = 5;
    scene.answers = [{ seq: 5 }];
    scene.outbox.send("7", "hello");
    await settle();
    expect(scene.states).toEqual([]);
  });
  test.each(["busy", "timeout", "internal", "rate_limited"])(
    "answered %s goes again with the same id",
    async (code) => {
      scene.answers = [new AppError(code, "", code === "busy" ? "none" : "unknown", 900)];
      scene.outbox.send("7", "hello");
      await settle();
      expect(scene.states).toEqual(["sending"]);
      await settle(10_000);
      expect(scene.sentIds).toEqual(["id-1", "id-1"]);
      expect(scene.states).toEqual(["sent"]);
    },
  );
  test("that lost its connection goes again with the same id, in order", async () => {
    scene.answers = [new ConnectionLost("unknown")];
    scene.outbox.send("7", "one");
    scene.outbox.send("7", "two");
    await settle(1_000);
    expect(scene.sentIds).toEqual(["id-1", "id-1", "id-2"]);
  });
  test("that is refused waits for a person, with the reason", async () => {
    scene.answers = [new AppError("rejected", "")];
    scene.outbox.send("7", "bad word");
    scene.outbox.send("7", "fine");
    await settle(1_000);
    expect(scene.outbox.of("7").map(({ state, reason }) => [state, reason])).toEqual([
      ["failed", "rejected"],
      ["sent", undefined],
    ]);
    scene.outbox.retry("7", "id-1");
    await settle(1_000);
    expect(scene.states).toEqual(["sent", "sent"]);
  });
  test("refused after an unknown attempt is unknown", async () => {
    scene.answers = [new AppError("timeout", "", "unknown"), new AppError("forbidden", "")];
    scene.outbox.send("7", "hello");
    await settle(20_000);
    expect(scene.states).toEqual(["unknown"]);
  });
  test("is given up when the server refuses for a minute", async () => {
    scene.answers = Array.from({ length: 500 }, () => new AppError("busy", ""));
    scene.outbox.send("7", "hello");
    await settle(90_000);
    expect(scene.states).toEqual(["failed"]);
  });
  test("without a connection waits as long as it takes", async () => {
    let connect: () => void = () => undefined;
    scene.online = new Promise((resolve) => {
      connect = resolve;
    });
    scene.outbox.send("7", "hello");
    await settle(3_600_000);
    expect(scene.states).toEqual(["sending"]);
    connect();
    await settle();
    expect(scene.states).toEqual(["sent"]);
  });
});

test("what was unsent when the page was left goes on with its id", async () => {
  const pending: Pending = { groupId: "7", clientMsgId: "old", body: "hello", at: 0, state: "sending", unknown: true };
  scene.outbox.restore([pending]);
  expect(scene.saved).toHaveLength(1);
  await settle();
  expect(scene.sentIds).toEqual(["old"]);
  expect(scene.saved).toHaveLength(0);
});

test("so many wait at most", () => {
  scene.online = new Promise(() => undefined);
  const taken = Array.from({ length: 201 }, () => scene.outbox.send("7", "hello"));
  expect(taken.filter(Boolean)).toHaveLength(200);
});

test("the order survives, whatever the clock does", async () => {
  scene.online = new Promise(() => undefined);
  vi.setSystemTime(1_000);
  scene.outbox.restore([{ groupId: "7", clientMsgId: "old", body: "a", at: 5_000, state: "sending", unknown: false }]);
  scene.outbox.send("7", "b");
  scene.outbox.send("7", "c");
  expect(scene.saved.map((one) => one.at)).toEqual([5_000, 5_001, 5_002]);
});
