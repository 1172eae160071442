/** An invite link was opened. */

import { useState } from "preact/hooks";
import { AppError } from "../../api/errors";
import { t } from "../../i18n";
import { useStore } from "../context";
import { Button } from "../kit/button";
import { Dialog, Failure, useAction } from "../kit/dialog";
import { go, groupHref } from "../route";

export function JoinByInvite({ groupId, code }: { readonly groupId: string; readonly code: string }) {
  const store = useStore();
  const [bad, setBad] = useState(false);
  const { busy, error, run } = useAction();
  async function join(): Promise<void> {
    const { client, ask } = store.http;
    try {
      const params = { path: { group_id: groupId } };
      store.learn(await ask(client.POST("/api/v1/groups/{group_id}/join", { params, body: { invite_code: code } })));
      go(groupHref(groupId));
    } catch (caught) {
      if (caught instanceof AppError && caught.code === "not_found") setBad(true);
      else throw caught;
    }
  }
  return (
    <Dialog title={t.joinTitle} onClose={() => go("#/")}>
      <p>{bad ? t.inviteBad : t.joinAsk}</p>
      <Failure text={error} />
      <footer>
        <Button onClick={() => go("#/")}>{bad ? t.close : t.cancel}</Button>
        {!bad && (
          <Button kind="primary" disabled={busy} onClick={() => run(join)}>
            {t.join}
          </Button>
        )}
      </footer>
    </Dialog>
  );
}
