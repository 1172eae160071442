/** A text with its web addresses as links. Text stays text: nothing in it is ever read as HTML. */
import { LinkifyIt } from "linkify-it";

const linkify = new LinkifyIt();
const START = /https?:\/\//gi;
/** Chinese is written without spaces: an address begins right after any character, and ends before these. */
const CJK_PUNCTUATION = /[，。！？；：、（）【】《》「」『』“”‘’…]/;

export interface Part {
  readonly text: string;
  readonly href: string | null;
}

/** The parts of a text in order; together they are the text. Only http and https become links. */
export function partsOf(text: string): Part[] {
  const parts: Part[] = [];
  let at = 0;
  for (const { index } of text.matchAll(START)) {
    if (index < at) continue;
    const candidate = text.slice(index).split(CJK_PUNCTUATION, 1)[0] ?? "";
    const found = linkify.matchAtStart(candidate);
    if (found === null) continue;
    if (index > at) parts.push({ text: text.slice(at, index), href: null });
    at = index + found.lastIndex;
    parts.push({ text: text.slice(index, at), href: found.url });
  }
  if (at < text.length) parts.push({ text: text.slice(at), href: null });
  return parts;
}

export function Linked({ text }: { readonly text: string }) {
  return (
    <>
      {partsOf(text).map((part, index) =>
        part.href === null ? (
          part.text
        ) : (
          <a key={index} href={part.href} target="_blank" rel="noopener noreferrer nofollow">
            {part.text}
          </a>
        ),
      )}
    </>
  );
}
