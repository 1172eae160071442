import { expect, test } from "vitest";
import type { Group } from "../src/api/types";
import { Groups } from "../src/store/groups";

function group(id: string, version = 1): Group {
  return { id, version, name: id, last_seq: 0, unread: 0, role: "member", member_count: 1 } as Group;
}

test("a list that was asked for before one joined takes nothing away", () => {
  const groups = new Groups(() => "1");
  groups.learn(group("old"));
  groups.learn(group("gone"));
  const known = [...groups.views.value.keys()];
  groups.learn(group("new"));
  expect(groups.replace([group("old")], known)).toEqual(["gone"]);
  expect([...groups.views.value.keys()]).toEqual(["old", "new"]);
});

test("a list that was asked for before one left brings nothing back", () => {
  const groups = new Groups(() => "1");
  groups.learn(group("left"));
  const known = [...groups.views.value.keys()];
  expect(groups.onLeft("left", 2)).toBe(true);
  expect(groups.replace([group("left")], known)).toEqual([]);
  expect(groups.get("left")).toBeUndefined();
});
