/** Messages and groups for tests. */
import type { Group, Message } from "../src/api/types";

export function message(seq: number, fields: Partial<Message> = {}): Message {
  return {
    message_id: String(1_000 + seq),
    group_id: "7",
    seq,
    sender_id: "2",
    client_msg_id: `id-${seq}`,
    kind: "text",
    body: `message ${seq}`,
    ts: Date.UTC(2026, 10, 24, 12, 0, seq),
    ...fields,
  };
}

/** Messages from `first` to `last`, both included. */
export function messages(first: number, last: number): Message[] {
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => message(first + index));
}

export function group(fields: Partial<Group> = {}): Group {
  return {
    id: "7",
    name: "Tea",
    announcement: "",
    visibility: "open",
    owner_id: "1",
    member_count: 2,
    created_at: 0,
    version: 3,
    role: "member",
    muted_until: null,
    last_seq: 10,
    last_read_seq: 10,
    unread: 0,
    unread_label: "",
    ...fields,
  };
}

export const seqs = (items: readonly Message[]) => items.map((item) => item.seq);
