/** Says when there is no connection, and when the next attempt is. Short interruptions are not worth a word. */
import { useEffect, useState } from "preact/hooks";
import { t } from "../i18n";
import { REPLACED } from "../wire/frames";
import { useStore } from "./context";
import { Button } from "./kit/button";

const QUIET_MS = 800;

export function ConnectionBanner() {
  const store = useStore();
  const state = store.session.state.value;
  const down = state.name !== "online";
  const [shown, setShown] = useState(false);
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    if (!down) {
      setShown(false);
      return;
    }
    const quiet = setTimeout(() => setShown(true), QUIET_MS);
    const tick = setInterval(() => setNow(Date.now()), 500);
    return () => {
      clearTimeout(quiet);
      clearInterval(tick);
    };
  }, [down]);
  const first = !store.groups.loaded.value;
  return (
    <div class="connection" role="status">
      {down && shown && (
        <div class={`banner ${state.name}`}>
          {state.name === "ended" && state.reason === REPLACED ? (
            <>
              <p>{t.replaced}</p>
              <Button onClick={() => store.connectHere()}>{t.connectHere}</Button>
            </>
          ) : state.name === "ended" ? (
            <p>
              {t.ended} <a href="/login">{t.logInAgain}</a>
            </p>
          ) : (
            <>
              <p>
                {state.name === "waiting" ? (
                  <>
                    {/* Said once, not every second. */}
                    <span class="hidden">{t.offlineSaid}</span>
                    <span aria-hidden="true">{t.offline(Math.max(0, Math.ceil((state.until - now) / 1000)))}</span>
                  </>
                ) : (
                  t.connecting
                )}
                {!first && <small>{t.offlineHint}</small>}
              </p>
              {state.name === "waiting" && <Button onClick={() => store.wake()}>{t.tryNow}</Button>}
            </>
          )}
        </div>
      )}
    </div>
  );
}
