import { expect, test } from "vitest";
import { Waits } from "../src/wire/backoff";

const BACKOFF = { base_ms: 100, max_ms: 1000, jitter: 1 };

test("waits are random below a ceiling that grows, and start anew after a success", () => {
  const waits = new Waits(BACKOFF, () => 0.25);
  expect([1, 2, 3, 4, 5, 6].map(() => waits.next())).toEqual([75, 150, 300, 600, 750, 750]);
  waits.reset();
  expect(waits.next()).toBe(75);
});

test("who was asked to stay away does so, and does not come back with all the others", () => {
  expect(new Waits(BACKOFF, () => 0.25).next(1000)).toBe(1075);
  expect(new Waits(BACKOFF, () => 0.75).next(1000)).toBe(1025);
});
