import { describe, expect, test, vi } from "vitest";
import { isBlank } from "../src/ui/blank";
import { message } from "./make";

// The modules ask the page for its language and its address.
vi.stubGlobal("document", { documentElement: { lang: "en" } });
vi.stubGlobal("location", { hash: "", origin: "https://chat.example" });
vi.stubGlobal("addEventListener", () => undefined);
const { partsOf } = await import("../src/ui/chat/linked");
const { buildRows } = await import("../src/ui/chat/rows");
const { parseRoute } = await import("../src/ui/route");
const { dayLabel } = await import("../src/i18n");

describe("links", () => {
  const links = (text: string) => partsOf(text).flatMap((part) => (part.href === null ? [] : [part.href]));
  test.each([
    ["see https://example.org/a?b=c#d.", ["https://example.org/a?b=c#d"]],
    ["看https://example.org/路径，好", ["https://example.org/路径"]],
    ["https://example.org/a，https://example.org/b。", ["https://example.org/a", "https://example.org/b"]],
    ["(http://example.org)", ["http://example.org"]],
    ["HTTPS://EXAMPLE.ORG", ["HTTPS://EXAMPLE.ORG"]],
  ])("%s", (text, expected) => expect(links(text)).toEqual(expected));
  test.each([
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:x",
    "//example.org/x",
    "ftp://example.org",
    "mailto:a@example.org",
    "file:///etc/passwd",
    "blob:https//x",
    "java\nscript:alert(1)",
  ])("%s is none", (text) => expect(links(text)).toEqual([]));
  test("leave the text as it is", () => {
    const text = 'a https://example.org/"><img src=x onerror=alert(1)> b';
    expect(
      partsOf(text)
        .map((part) => part.text)
        .join(""),
    ).toBe(text);
  });
});

describe("rows", () => {
  const kinds = (rows: ReturnType<typeof buildRows>) =>
    rows.map((row) => ("head" in row ? `${row.type}${row.head ? "+" : ""}` : row.type));
  test("group one sender's messages within five minutes", () => {
    const minutes = (n: number) => Date.UTC(2026, 10, 24, 12, n);
    const items = [
      message(1, { ts: minutes(0) }),
      message(2, { ts: minutes(4) }),
      message(3, { ts: minutes(10) }),
      message(4, { ts: minutes(10), sender_id: "3" }),
    ];
    const rows = buildRows({ items, pending: [], newAfter: null, me: "1" });
    expect(kinds(rows)).toEqual(["beginning", "day", "message+", "message", "message+", "message+"]);
  });
  test("mark what is new, and begin a group there", () => {
    const rows = buildRows({ items: [message(8), message(9)], pending: [], newAfter: 8, me: "1" });
    expect(kinds(rows)).toEqual(["day", "message+", "new", "message+"]);
  });
  test("have a day where it changes", () => {
    const items = [message(2), message(3, { ts: Date.UTC(2026, 10, 26, 12) })];
    expect(kinds(buildRows({ items, pending: [], newAfter: null, me: "1" }))).toEqual([
      "day",
      "message+",
      "day",
      "message+",
    ]);
  });
});

test("addresses lead where they say", () => {
  expect(parseRoute("#/g/123")).toEqual({ name: "group", groupId: "123", seq: null });
  expect(parseRoute("#/g/123/45")).toEqual({ name: "group", groupId: "123", seq: 45 });
  expect(parseRoute("#/join/123/aB-_9")).toEqual({ name: "join", groupId: "123", code: "aB-_9" });
  for (const bad of ["", "#/g/", "#/g/x", "#/g/1/2/3", "#/join/1", "#/join/1/<script>", "#javascript:alert(1)"]) {
    expect(parseRoute(bad)).toEqual({ name: "home" });
  }
});

test("days have names", () => {
  const now = new Date(2026, 10, 24, 9).getTime();
  expect(dayLabel(new Date(2026, 10, 24, 1).getTime(), now)).toBe("Today");
  expect(dayLabel(new Date(2026, 10, 23, 23).getTime(), now)).toBe("Yesterday");
  expect(dayLabel(new Date(2026, 0, 2).getTime(), now)).toBe("Fri, Jan 2");
  expect(dayLabel(new Date(2025, 0, 2).getTime(), now)).toBe("Jan 2, 2025");
});

describe("blank", () => {
  test("is what shows nothing", () => {
    for (const text of ["", " \n", "\u3164", "\u2800", "\u200b\u200d", "\ufe0f", "\u3000", "\ufeff"])
      expect(isBlank(text), JSON.stringify(text)).toBe(true);
  });
  test("is not what shows something", () => {
    for (const text of ["a", " 好", "\u200b.", "🐦", "❤️", "가"]) expect(isBlank(text), text).toBe(false);
  });
});
