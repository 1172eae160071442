import { describe, expect, test } from "vitest";
import { Timeline } from "../src/store/timeline";
import { messages, seqs } from "./make";

describe("a timeline", () => {
  test("takes what arrives at its end, once", () => {
    const timeline = new Timeline();
    timeline.show(messages(5, 9), true);
    timeline.append(messages(8, 11));
    expect(seqs(timeline.items.value)).toEqual([5, 6, 7, 8, 9, 10, 11]);
  });
  test("keeps what arrived while its first page was read", () => {
    const timeline = new Timeline();
    timeline.append(messages(10, 11));
    timeline.show(messages(5, 9), true);
    expect(seqs(timeline.items.value)).toEqual([5, 6, 7, 8, 9, 10, 11]);
  });
  test("never has a hole: what does not follow is read again", () => {
    const timeline = new Timeline();
    timeline.append(messages(20, 21));
    timeline.show(messages(5, 9), true);
    expect(seqs(timeline.items.value)).toEqual([5, 6, 7, 8, 9]);
  });
  test("grows upward only by what is next", () => {
    const timeline = new Timeline();
    timeline.show(messages(50, 60), true);
    timeline.prepend(messages(40, 49));
    timeline.prepend(messages(10, 20));
    expect([timeline.first, timeline.last, timeline.hasOlder]).toEqual([40, 60, true]);
  });
  test("after a jump does not mix the newest messages in, until it reaches them", () => {
    const timeline = new Timeline();
    timeline.show(messages(100, 110), true);
    timeline.live.value = false;
    timeline.show(messages(10, 20), false);
    timeline.append(messages(111, 112));
    expect(timeline.last).toBe(20);
    timeline.extend(messages(21, 111), 112);
    expect(timeline.live.value).toBe(false);
    timeline.extend(messages(112, 112), 112);
    expect([timeline.live.value, timeline.last]).toEqual([true, 112]);
  });
});
