import { expect, test, vi } from "vitest";

// The modules ask the page for its language, its address and its permissions.
vi.stubGlobal("document", { documentElement: { lang: "en" }, hidden: true });
vi.stubGlobal("location", { hash: "" });
vi.stubGlobal("addEventListener", () => undefined);
const refusing = Object.assign(
  function notification(): never {
    throw new TypeError("Illegal constructor");
  },
  { permission: "granted" },
);
vi.stubGlobal("Notification", refusing);
vi.stubGlobal("window", { Notification: refusing });
const { notifications, notify } = await import("../src/ui/notify");

test("a phone that permits notifications and refuses to show them does not stop the messages", () => {
  notifications.wanted.value = true;
  expect(() => notify("7", "Tea", "Ann", "hello")).not.toThrow();
});
