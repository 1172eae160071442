/** What the browser keeps for one user between visits: drafts, unsent messages, choices. Gone at logout. */

const PREFIX = "magpie:";

export class Keep {
  constructor(private readonly owner: string) {}

  get<T>(name: string, otherwise: T): T {
    try {
      const text = localStorage.getItem(this.key(name));
      return text === null ? otherwise : (JSON.parse(text) as T);
    } catch {
      return otherwise;
    }
  }

  /** Of everything that begins so. */
  names(start: string): string[] {
    try {
      const whole = this.key(start);
      const keys = Object.keys(localStorage).filter((key) => key.startsWith(whole));
      return keys.map((key) => start + key.slice(whole.length));
    } catch {
      return [];
    }
  }

  /** A full or forbidden storage costs what would have been kept, nothing else. */
  set(name: string, value: unknown): void {
    try {
      if (value === undefined) localStorage.removeItem(this.key(name));
      else localStorage.setItem(this.key(name), JSON.stringify(value));
    } catch {
      // Private windows and full disks.
    }
  }

  /** Everything of every user of this browser but the looks of the page. */
  static forget(): void {
    try {
      for (const key of Object.keys(localStorage)) {
        if (key.startsWith(PREFIX) && !key.startsWith(`${PREFIX}page:`)) localStorage.removeItem(key);
      }
    } catch {
      // Nothing was kept then.
    }
  }

  private key(name: string): string {
    return `${PREFIX}${this.owner}:${name}`;
  }
}
