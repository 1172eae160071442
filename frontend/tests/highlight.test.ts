import { expect, test } from "vitest";
import { highlighted } from "../src/ui/highlight";

const marked = (snippet: string, highlights: number[][]) =>
  highlighted(snippet, highlights)
    .map((piece) => (piece.marked ? `[${piece.text}]` : piece.text))
    .join("");

test("highlights count in code points", () => {
  expect(marked("😀 你好 world", [[2, 4]])).toBe("😀 [你好] world");
  expect(marked("abc", [])).toBe("abc");
  expect(
    marked("abcdef", [
      [0, 1],
      [5, 6],
    ]),
  ).toBe("[a]bcde[f]");
});

test("nothing of the snippet is lost, whatever the highlights say", () => {
  const odd = [
    [3, 2],
    [1, 4],
    [2, 3],
    [9, 12],
  ];
  expect(
    highlighted("abcdef", odd)
      .map((piece) => piece.text)
      .join(""),
  ).toBe("abcdef");
});
