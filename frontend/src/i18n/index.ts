/** The page's language: chosen by the server (cookie, then browser), in `<html lang>`. Another choice loads the page anew. */
import { AppError } from "../api/errors";
import { en } from "./en";
import { zh } from "./zh";

const chinese = document.documentElement.lang.startsWith("zh");

export const locale = chinese ? "zh-CN" : "en";
export const t = chinese ? zh : en;
/** What the server's `?lang=` takes, and its own name. */
export const languages = [
  { code: "en", name: en.language, current: !chinese },
  { code: "zh", name: zh.language, current: chinese },
] as const;

/** What to tell a person of a failure. */
export function explain(error: unknown): string {
  const code = error instanceof AppError ? error.code : "internal";
  return t.errors[code] ?? t.errors.internal ?? code;
}

const clock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const dayOfYear = new Intl.DateTimeFormat(locale, { weekday: "short", month: "short", day: "numeric" });
const dayAndYear = new Intl.DateTimeFormat(locale, { year: "numeric", month: "short", day: "numeric" });
const full = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" });
const DAY_MS = 86_400_000;

function midnight(ts: number): number {
  return new Date(ts).setHours(0, 0, 0, 0);
}

export function timeOf(ts: number): string {
  return clock.format(ts);
}

export function fullTime(ts: number): string {
  return full.format(ts);
}

/** A number for each local day. */
export function dayKey(ts: number): number {
  return midnight(ts);
}

export function dayLabel(ts: number, now = Date.now()): string {
  const days = Math.round((midnight(now) - midnight(ts)) / DAY_MS);
  if (days === 0) return t.today;
  if (days === 1) return t.yesterday;
  return new Date(ts).getFullYear() === new Date(now).getFullYear() ? dayOfYear.format(ts) : dayAndYear.format(ts);
}

/** Short, for lists: the time today, else the day. */
export function shortTime(ts: number, now = Date.now()): string {
  return midnight(ts) === midnight(now) ? timeOf(ts) : dayLabel(ts, now);
}
