/** Protocol version 1 as the browser sees it: what is sent, and what comes. Unknown events and fields are ignored. */
import type { Group, Message, PublicGroup, Role, User } from "../api/types";

export const SUBPROTOCOL = "im.v1.json";

/** Why a connection was closed with 4500: a newer one of the same user took over. */
export const REPLACED = "replaced";

export type Request =
  | { type: "message.send"; group_id: string; client_msg_id: string; kind: "text"; body: string }
  | { type: "message.read"; group_id: string; seq: number }
  | { type: "group.focus"; group_id: string | null }
  | { type: "resume"; groups: Record<string, { seq: number }> }
  | { type: "ping" };

export interface Backoff {
  readonly base_ms: number;
  readonly max_ms: number;
  readonly jitter: number;
}

export interface Hello {
  readonly type: "hello";
  readonly session: string;
  readonly user_id: string;
  readonly node: string;
  /** Milliseconds since 1970. */
  readonly server_time: number;
  readonly heartbeat_s: number;
  readonly epoch: string;
  readonly features: readonly string[];
  readonly backoff: Backoff;
  readonly limits: { readonly body_code_points: number; readonly resume_groups: number };
}

/** The ack of a send. */
export interface Sent {
  readonly message_id: string;
  readonly seq: number;
  readonly ts: number;
}

export interface Resumed {
  readonly state: "current" | "delta" | "behind" | "reset";
  readonly items?: readonly Message[];
  readonly last_seq: number;
}

export type MemberChange = "joined" | "left" | "kicked" | "banned" | "muted" | "unmuted" | "role";

export type ServerEvent =
  | Hello
  | {
      readonly type: "messages";
      readonly group_id: string;
      readonly prev_seq: number;
      readonly items: readonly Message[];
    }
  | {
      readonly type: "gap" | "resync";
      readonly group_id: string;
      readonly from_seq: number;
      readonly to_seq?: number;
      readonly pull_within_ms: number;
    }
  | { readonly type: "group.joined"; readonly group: Group }
  | { readonly type: "group.updated"; readonly group: PublicGroup }
  | { readonly type: "group.left"; readonly group_id: string; readonly reason: string; readonly version: number }
  | { readonly type: "group.deleted"; readonly group_id: string; readonly version: number }
  | {
      readonly type: "group.member";
      readonly group_id: string;
      readonly user: User;
      readonly role: Role | null;
      readonly muted_until: number | null;
      readonly change: MemberChange;
      readonly member_count: number;
      readonly version: number;
    }
  | { readonly type: "typing"; readonly group_id: string; readonly user_id: string }
  | { readonly type: "read"; readonly group_id: string; readonly user_id: string; readonly seq: number }
  | {
      readonly type: "presence";
      readonly user_id: string;
      readonly state: "online" | "offline";
      readonly last_seen: number | null;
      readonly ts: number;
    }
  | { readonly type: "presence.count"; readonly group_id: string; readonly online: number }
  | { readonly type: "kick"; readonly reason: string }
  | { readonly type: "drain"; readonly retry_after_ms: number };
