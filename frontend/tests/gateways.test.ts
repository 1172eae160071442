import { expect, test } from "vitest";
import type { Http } from "../src/api/client";
import { Gateways } from "../src/wire/gateways";
import type { Closed, Socket } from "../src/wire/socket";

/** A server that names these gateways in turn; what it was asked, and which addresses were tried. */
function serving(page: string, named: ({ url: string; node: string } | null)[], refuses: string[] = []) {
  const asked: unknown[] = [];
  const tried: string[] = [];
  const http = {
    client: { GET: (_: string, init: { params: { query: unknown } }) => init.params.query },
    ask: async (query: unknown) => {
      asked.push(query);
      const answer = named.shift();
      if (!answer) throw new Error("away");
      return answer;
    },
  } as unknown as Http;
  const connect = async (url: string) => {
    tried.push(url);
    if (refuses.includes(url)) throw { code: 1006, reason: "" };
    const ended = new Promise<Closed>((resolve) => {
      close = (code) => resolve({ code, reason: "" });
    });
    return { hello: { node: "g" }, whenClosed: () => ended } as unknown as Socket;
  };
  let close: (code: number) => void = () => undefined;
  const end = (code: number) => close(code);
  return { gateways: new Gateways(http, new URL(page), connect), asked, tried, end };
}

const ignore = () => undefined;

test("after a failure another gateway is asked for", async () => {
  const named = [
    { url: "wss://g1.example.org/ws", node: "g1" },
    { url: "wss://g2.example.org/ws", node: "g2" },
  ];
  const { gateways, asked, tried } = serving("https://example.org/", named, ["wss://g1.example.org/ws"]);
  await expect(gateways.open(ignore)).rejects.toMatchObject({ code: 1006 });
  await gateways.open(ignore);
  expect(asked).toEqual([{}, { not: "g1" }]);
  expect(tried).toEqual(["wss://g1.example.org/ws", "wss://g2.example.org/ws"]);
});

test.each([
  [4000, { not: "g" }],
  [4002, {}],
])("after a close with %i it asks with %o", async (code, query) => {
  const named = { url: "wss://g1.example.org/ws", node: "g" };
  const { gateways, asked, end } = serving("https://example.org/", [named, named]);
  await gateways.open(ignore);
  end(code);
  await Promise.resolve();
  await gateways.open(ignore);
  expect(asked).toEqual([{}, query]);
});

test("while the API is away the last gateway is tried", async () => {
  const { gateways, tried } = serving("https://example.org/", [{ url: "wss://g1.example.org/ws", node: "g1" }, null]);
  await gateways.open(ignore);
  await gateways.open(ignore);
  expect(tried).toEqual(["wss://g1.example.org/ws", "wss://g1.example.org/ws"]);
});

test.each([
  ["http://localhost:8080/", "ws://localhost:8081/ws", "ws://localhost:8081/ws"],
  ["http://127.0.0.1:8080/", "ws://localhost:8081/ws", "ws://127.0.0.1:8081/ws"],
  ["https://chat.example.org/", "ws://localhost:8080/ws", "wss://chat.example.org/ws"],
  ["https://chat.example.org/", "ws://chat.example.org/ws", "wss://chat.example.org/ws"],
  ["http://chat.example.org/", "ws://localhost:8081/ws", "ws://chat.example.org/ws"],
])("on %s the gateway %s is reached at %s", async (page, url, expected) => {
  const { gateways, tried } = serving(page, [{ url, node: "g" }]);
  await gateways.open(ignore);
  expect(tried).toEqual([expected]);
});
