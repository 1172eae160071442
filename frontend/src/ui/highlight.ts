/** A snippet cut at its highlights, which count in code points, not in UTF-16 units as strings do here. */

export interface Piece {
  readonly text: string;
  readonly marked: boolean;
}

export function highlighted(snippet: string, highlights: readonly (readonly number[])[]): Piece[] {
  const points = [...snippet];
  const pieces: Piece[] = [];
  let at = 0;
  for (const [start = 0, end = 0] of highlights) {
    if (start < at || end <= start) continue;
    if (start > at) pieces.push({ text: points.slice(at, start).join(""), marked: false });
    pieces.push({ text: points.slice(start, end).join(""), marked: true });
    at = end;
  }
  if (at < points.length) pieces.push({ text: points.slice(at).join(""), marked: false });
  return pieces;
}
