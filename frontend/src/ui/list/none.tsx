/** Who is in no group yet: what to do about it. */
import { t } from "../../i18n";
import { useShell } from "../context";
import { Button } from "../kit/button";

export function NoGroups() {
  const { dialog } = useShell();
  return (
    <div class="nothing">
      <img src="/static/logo.svg" alt="" width="96" height="96" />
      <h2>{t.noGroups}</h2>
      <p>{t.noGroupsHint}</p>
      <div class="actions">
        <Button
          kind="primary"
          onClick={() => {
            dialog.value = "new-group";
          }}
        >
          {t.makeFirst}
        </Button>
        <Button
          onClick={() => {
            dialog.value = "discover";
          }}
        >
          {t.findFirst}
        </Button>
      </div>
    </div>
  );
}
