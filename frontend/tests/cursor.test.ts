import { describe, expect, test } from "vitest";
import { Cursor } from "../src/store/cursor";
import { message, messages, seqs } from "./make";

describe("a packet", () => {
  test("that follows is taken", () => {
    const cursor = new Cursor(10);
    expect(seqs(cursor.onPacket(10, messages(11, 13)))).toEqual([11, 12, 13]);
    expect(cursor.have).toBe(13);
  });
  test("that repeats gives only what is new", () => {
    const cursor = new Cursor(11);
    expect(seqs(cursor.onPacket(9, messages(10, 12)))).toEqual([12]);
  });
  test("that comes too early waits for the pull between", () => {
    const cursor = new Cursor(10);
    expect(cursor.onPacket(12, messages(13, 14))).toEqual([]);
    expect(cursor.wantsPull).toBe(true);
    const released = cursor.onPulled(cursor.beginPull(), messages(11, 12), true);
    expect(seqs(released)).toEqual([11, 12, 13, 14]);
    expect(cursor.wantsPull).toBe(false);
  });
  test("with a hole in it is not trusted", () => {
    const cursor = new Cursor(10);
    expect(seqs(cursor.onPacket(10, [message(11), message(13)]))).toEqual([11]);
    expect(cursor.wantsPull).toBe(true);
  });
  test("for which there is no room is left to the pull", () => {
    const cursor = new Cursor(0, 2);
    cursor.onPacket(5, messages(6, 8));
    expect(cursor.wantsPull).toBe(true);
    expect(seqs(cursor.onPulled(cursor.beginPull(), messages(1, 8), true))).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(cursor.wantsPull).toBe(false);
  });
});

describe("a gap", () => {
  test("below what is here is no gap", () => {
    const cursor = new Cursor(10);
    cursor.onGap(10);
    expect(cursor.wantsPull).toBe(false);
  });
  test("is closed only by a pull", () => {
    const cursor = new Cursor(10);
    cursor.onGap(undefined);
    cursor.onPacket(10, messages(11, 12));
    expect(cursor.wantsPull).toBe(true);
    cursor.onPulled(cursor.beginPull(), [], true);
    expect(cursor.wantsPull).toBe(false);
  });
  test("announced while a pull is under way needs another one", () => {
    const cursor = new Cursor(10);
    cursor.onGap(undefined);
    const pull = cursor.beginPull();
    cursor.onGap(undefined);
    cursor.onPulled(pull, messages(11, 11), true);
    expect(cursor.wantsPull).toBe(true);
  });
});

test("whatever is lost, repeated or reordered, everything is read once and in order", () => {
  for (let seed = 1; seed <= 300; seed += 1) {
    const random = generator(seed);
    const cursor = new Cursor(0, 6);
    const read: number[] = [];
    let head = 0;
    for (let step = 0; step < 60; step += 1) {
      const size = 1 + Math.floor(random() * 4);
      const what = random();
      if (what < 0.5) {
        const before = head;
        head += size;
        if (random() < 0.6) read.push(...seqs(cursor.onPacket(before, messages(before + 1, head))));
        else if (random() < 0.5) cursor.onGap(head);
        else cursor.onGap(undefined);
      } else if (what < 0.7 && head > 0) {
        const from = Math.floor(random() * head);
        read.push(...seqs(cursor.onPacket(from, messages(from + 1, Math.min(head, from + size)))));
      } else if (cursor.wantsPull) {
        const pull = cursor.beginPull();
        const end = Math.min(head, pull.after + 3);
        read.push(...seqs(cursor.onPulled(pull, messages(pull.after + 1, end), end === head)));
      }
    }
    // The last heads say what was lost for good.
    cursor.onGap(head);
    for (let turn = 0; cursor.wantsPull && turn < 200; turn += 1) {
      const pull = cursor.beginPull();
      const end = Math.min(head, pull.after + 3);
      read.push(...seqs(cursor.onPulled(pull, messages(pull.after + 1, end), end === head)));
    }
    expect(read, `seed ${seed}`).toEqual(seqs(messages(1, head)));
  }
});

/** Mulberry32: the same numbers for the same seed. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
