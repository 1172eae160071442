/** What stands in the list, one below the other: days, the mark of what is new, messages, and those on their way. */
import type { Message } from "../../api/types";
import { dayKey } from "../../i18n";
import type { Pending } from "../../store/outbox";

/** Messages of one person within this time stand together under one name. */
const TOGETHER_MS = 5 * 60_000;

export type Row =
  | { readonly type: "beginning"; readonly key: string }
  | { readonly type: "day"; readonly key: string; readonly ts: number }
  | { readonly type: "new"; readonly key: string }
  | { readonly type: "message"; readonly key: string; readonly message: Message; readonly head: boolean }
  | { readonly type: "pending"; readonly key: string; readonly pending: Pending; readonly head: boolean };

interface Input {
  readonly items: readonly Message[];
  readonly pending: readonly Pending[];
  /** The first new message follows this seq; null: no mark. */
  readonly newAfter: number | null;
  readonly me: string;
}

export function buildRows({ items, pending, newAfter, me }: Input): Row[] {
  const rows: Row[] = [];
  let day = 0;
  let sender = "";
  let last = 0;
  if (items[0] === undefined || items[0].seq === 1) rows.push({ type: "beginning", key: "beginning" });
  function step(ts: number, from: string): boolean {
    const today = dayKey(ts);
    const newDay = today !== day;
    if (newDay) rows.push({ type: "day", key: `day-${today}`, ts });
    const head = newDay || from !== sender || ts - last > TOGETHER_MS;
    day = today;
    sender = from;
    last = ts;
    return head;
  }
  for (const message of items) {
    const isFirstNew = newAfter !== null && message.seq === newAfter + 1;
    if (isFirstNew) sender = "";
    const head = step(message.ts, message.sender_id);
    if (isFirstNew) rows.push({ type: "new", key: "new" });
    // A message keeps its key from the moment it is written, so that its row stays when it is stored.
    rows.push({ type: "message", key: message.client_msg_id, message, head });
  }
  for (const one of pending) {
    // A clock that is behind must not put a day before the last message's.
    const head = step(Math.max(one.at, last), me);
    rows.push({ type: "pending", key: one.clientMsgId, pending: one, head });
  }
  return rows;
}

/** Where a message stands, or -1. */
export function rowOfSeq(rows: readonly Row[], seq: number): number {
  return rows.findIndex((row) => row.type === "message" && row.message.seq === seq);
}

/** The newest message in or above a row; 0: none. */
export function seqAt(rows: readonly Row[], index: number): number {
  for (let at = Math.min(index, rows.length - 1); at >= 0; at -= 1) {
    const row = rows[at];
    if (row?.type === "message") return row.message.seq;
  }
  return 0;
}
