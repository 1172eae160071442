import { expect, test, vi } from "vitest";
import { createHttp } from "../src/api/client";

/** The client in a browser that notes what it sends; `/me` and all else are answered with nothing. */
function asking() {
  const sent: [string, string | null][] = [];
  vi.stubGlobal("location", { origin: "http://magpie.test" });
  vi.stubGlobal("fetch", async (request: Request) => {
    sent.push([request.method, request.headers.get("X-CSRF-Token")]);
    return Response.json({});
  });
  return { sent, http: createHttp(() => undefined) };
}

const JOIN = { params: { path: { group_id: "7" } }, body: {} };

test("a change that is asked for before the token is known waits for it", async () => {
  const { sent, http } = asking();
  const joined = http.ask(http.client.POST("/api/v1/groups/{group_id}/join", JOIN));
  await http.ask(http.client.GET("/api/v1/me"));
  expect(sent).toEqual([["GET", null]]);
  http.useCsrfToken("first");
  await joined;
  http.useCsrfToken("second");
  await http.ask(http.client.POST("/api/v1/groups/{group_id}/join", JOIN));
  expect(sent.slice(1)).toEqual([
    ["POST", "first"],
    ["POST", "second"],
  ]);
});
