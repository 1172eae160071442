/** Short names for what the API answers with; the shapes are generated from the server's OpenAPI document. */
import type { components } from "./schema";

type Schemas = components["schemas"];

export type Me = Schemas["MeAnswer"];
export type User = Schemas["UserAnswer"];
export type Group = Schemas["MyGroup"];
export type FoundGroup = Schemas["FoundGroup"];
export type Member = Schemas["Member"];
export type Message = Schemas["MessageAnswer"];
export type Role = Group["role"];

/** A group as events tell it: without what concerns the caller alone. */
export type PublicGroup = Omit<
  Group,
  "role" | "muted_until" | "last_seq" | "last_read_seq" | "unread" | "unread_label"
>;

/** A search result; `highlights` are [start, end) in code points of `snippet`. */
export type Found = Omit<Schemas["FoundMessage"], "highlights"> & {
  readonly highlights: readonly (readonly number[])[];
};
