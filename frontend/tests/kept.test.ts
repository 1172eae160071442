import { beforeEach, describe, expect, test, vi } from "vitest";
import { Kept } from "../src/store/kept";
import type { Pending } from "../src/store/outbox";
import { Keep } from "../src/store/storage";

beforeEach(() => {
  vi.unstubAllGlobals();
  vi.stubGlobal("localStorage", storage());
});

/** What a browser's is: its own keys are the entries. */
function storage(): Storage {
  const methods = {
    getItem: (key: string) => (Object.hasOwn(entries, key) ? entries[key] : null),
    setItem: (key: string, value: string) => {
      entries[key] = value;
    },
    removeItem: (key: string) => {
      delete entries[key];
    },
  };
  const entries: Record<string, string> = Object.create(methods);
  return entries as unknown as Storage;
}

const tab = (user = "1") => new Kept(new Keep(user));

function pending(id: string, at: number): Pending {
  return { groupId: "7", clientMsgId: id, body: `text ${id}`, at, state: "sending", unknown: false };
}

describe("two tabs of one user", () => {
  test("keep both drafts", () => {
    const [one, two] = [tab(), tab()];
    one.setDraft("7", "tea");
    two.setDraft("8", "coffee");
    one.setDraft("9", "");
    expect([...tab().drafts()].sort()).toEqual([
      ["7", "tea"],
      ["8", "coffee"],
    ]);
  });

  test("keep what both have not sent yet, in the order it was written", () => {
    const [one, two] = [tab(), tab()];
    one.setOutbox([pending("b", 2)]);
    two.setOutbox([pending("a", 1), pending("c", 3)]);
    expect(tab().outbox()).toEqual([pending("a", 1), pending("b", 2), pending("c", 3)]);
    two.setOutbox([pending("c", 3)]);
    expect(tab().outbox()).toEqual([pending("b", 2), pending("c", 3)]);
  });
});

test("other users see nothing of it", () => {
  tab("1").setDraft("7", "tea");
  tab("12").setOutbox([pending("a", 1)]);
  expect([tab("2").drafts().size, tab("2").outbox(), tab("1").outbox()]).toEqual([0, [], []]);
});

test("after logging out nothing is kept, and nothing comes back", () => {
  const kept = tab();
  kept.setDraft("7", "tea");
  kept.setOutbox([pending("a", 1)]);
  new Keep("page").set("theme", "dark");
  kept.close();
  Keep.forget();
  kept.setDraft("7", "tea");
  kept.setOutbox([pending("a", 1)]);
  expect(Object.keys(localStorage)).toEqual(["magpie:page:theme"]);
});

test("what cannot be understood is passed over", () => {
  const keep = new Keep("1");
  for (const broken of [null, {}, [], 3, { ...pending("a", 1), body: 5 }, { ...pending("a", 1), at: "now" }]) {
    keep.set("unsent:a", broken);
    keep.set("draft:7", broken);
    expect([tab().outbox(), tab().drafts().size]).toEqual([[], 0]);
  }
});
