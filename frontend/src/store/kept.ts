/** Drafts and unsent messages of one user in this browser, each under its own name, so that several tabs do not overwrite each other's. */
import type { Pending } from "./outbox";
import type { Keep } from "./storage";

const DRAFT = "draft:";
const UNSENT = "unsent:";

export class Kept {
  private unsent = new Map<string, Pending>();
  private closed = false;

  constructor(private readonly keep: Keep) {}

  /** Group → text. */
  drafts(): Map<string, string> {
    const found = new Map<string, string>();
    for (const name of this.keep.names(DRAFT)) {
      const text = this.keep.get<unknown>(name, null);
      if (typeof text === "string") found.set(name.slice(DRAFT.length), text);
    }
    return found;
  }

  setDraft(groupId: string, text: string): void {
    if (!this.closed) this.keep.set(DRAFT + groupId, text === "" ? undefined : text);
  }

  /** In the order they were written; what an unknown version of this page has left is passed over. */
  outbox(): Pending[] {
    const found = this.keep.names(UNSENT).map((name) => this.keep.get<unknown>(name, null));
    return found.filter(isPending).sort((a, b) => a.at - b.at);
  }

  /** All that is unsent in this tab. */
  setOutbox(pending: readonly Pending[]): void {
    if (this.closed) return;
    const now = new Map(pending.map((one) => [one.clientMsgId, one]));
    for (const id of this.unsent.keys()) if (!now.has(id)) this.keep.set(UNSENT + id, undefined);
    for (const [id, one] of now) if (this.unsent.get(id) !== one) this.keep.set(UNSENT + id, one);
    this.unsent = now;
  }

  /** The user logs out: nothing is kept from now on. */
  close(): void {
    this.closed = true;
  }
}

function isPending(found: unknown): found is Pending {
  const one = found as Partial<Pending> | null;
  return (
    [one?.groupId, one?.clientMsgId, one?.body, one?.state].every((field) => typeof field === "string") &&
    typeof one?.at === "number"
  );
}
