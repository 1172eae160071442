/** A feather in one of eight colours, with a first letter and a dot for who is online; the same id always has the same one. */

const COLOURS = 8;
/** Making one takes longer than showing a message. */
const graphemes = new Intl.Segmenter(undefined, { granularity: "grapheme" });

function colourOf(id: string): number {
  let sum = 0;
  for (const digit of id) sum = (sum * 31 + digit.charCodeAt(0)) % 9973;
  return sum % COLOURS;
}

function letterOf(name: string): string {
  for (const { segment } of graphemes.segment(name.trim().slice(0, 16))) return segment.toLocaleUpperCase();
  return "·";
}

export function Avatar({
  id,
  name,
  online = false,
  small = false,
}: {
  readonly id: string;
  readonly name: string;
  readonly online?: boolean | undefined;
  readonly small?: boolean;
}) {
  return (
    <span class={`avatar c${colourOf(id)} ${small ? "small" : ""}`} aria-hidden="true">
      {letterOf(name)}
      {online && <i />}
    </span>
  );
}
