// What the page knows and where it stands, as signals; and who keeps them up to date.

import { batch, computed, effect, signal, untracked } from "@preact/signals";
import { api, Refusal, still, type Told } from "./api";
import { endOf, Journal, type Moment } from "./model";
import type { Entry, Run, Schema, WorkflowDetail, WorkflowInfo } from "./types";

export type Tab = "journal" | "stream" | "state" | "errors" | "result";
export type Pane = "runs" | "run" | "journal";
export type Line = "idle" | "loading" | "live" | "lost" | "over" | "missing";

const FLUSH = 30; // milliseconds in which what is told is gathered
const RUNS = 30; // runs in one answer
const REFRESH = 2000; // milliseconds between looks at the list of runs

// ------------------------------------------------------------------------------------------------ what is known
export const workflows = signal<WorkflowInfo[] | null>(null);
export const details = signal<ReadonlyMap<string, WorkflowDetail>>(new Map());
export const runs = signal<Run[]>([]);
export const older = signal("");
export const run = signal<Run | null>(null);
export const journal = signal(new Journal());
export const revision = signal(0); // of the journal, which is changed in place
export const line = signal<Line>("idle");
export const reachable = signal(true);
export const notice = signal<{ text: string; bad: boolean } | null>(null);
export const locked = signal(false); // the server asks for a token
export const clock = signal(Date.now() / 1000);

// ------------------------------------------------------------------------------------------------ where one stands
export const workflowName = signal("");
export const runId = signal("");
export const place = signal<number | null>(null); // null: at the head, which moves
export const playing = signal(false);
export const tab = signal<Tab>("journal");
export const picked = signal(0); // number of the entry that is shown
export const search = signal("");
export const statuses = signal("");
export const everywhere = signal(false); // runs of all workflows
export const prefix = signal("");
export const pane = signal<Pane>("run");
export const theme = signal<"" | "light" | "dark">((localStorage.getItem("actorflow.theme") as "" | "light" | "dark") ?? "");

// ------------------------------------------------------------------------------------------------ what follows
export const head = computed(() => (revision.value, journal.value.head));
export const pos = computed(() => Math.min(place.value ?? head.value, head.value));
export const moment = computed<Moment>(() => (revision.value, journal.value.moment(pos.value)));
export const detail = computed(() => details.value.get(run.value?.workflow ?? workflowName.value) ?? null);
export const formDetail = computed(() => details.value.get(workflowName.value) ?? null);
export const status = computed(() => {
  if (place.value === null && run.value !== null && run.value.run_id === runId.value) return currentStatus();
  return head.value === 0 ? (run.value?.status ?? "") : moment.value.status;
});

/** The waits that are open now, where now is what is shown. */
export const waits = computed(() =>
  revision.value >= 0 && place.value === null && journal.value.closedAt === 0 && run.value?.run_id === runId.value
    ? (run.value.waits ?? [])
    : [],
);

function currentStatus(): string {
  const known = run.value?.status ?? "";
  const { closedAt } = journal.value;
  if (closedAt > 0) return endOf(moment.value.closed);
  return known === "running" || known === "waiting" ? moment.value.status : known;
}

export function schemaOf(type: string): Schema | null {
  return detail.value?.events[type] ?? null;
}

export function say(text: string, bad = false): void {
  notice.value = { text, bad };
}

/** What is told of something that went wrong. */
export function complain(error: unknown): void {
  if (error instanceof Refusal && error.status === 401) locked.value = true;
  else say(error instanceof Error ? error.message : String(error), true);
}

// ------------------------------------------------------------------------------------------------ the address
interface Address {
  workflow: string;
  run: string;
  at: number | null;
  tab: Tab;
  entry: number;
  q: string;
  status: string;
  prefix: string;
  all: boolean;
}

const TABS: readonly Tab[] = ["journal", "stream", "state", "errors", "result"];

function readAddress(): Address {
  const [path = "", rest = ""] = (location.hash || still?.address || "").replace(/^#\/?/, "").split("?");
  const [workflow = "", one = ""] = path.split("/").map(decodeURIComponent);
  const values = new URLSearchParams(rest);
  const at = Number.parseInt(values.get("at") ?? "", 10);
  return {
    workflow,
    run: one,
    at: Number.isNaN(at) ? null : Math.max(0, at),
    tab: TABS.find((known) => known === values.get("tab")) ?? "journal",
    entry: Number.parseInt(values.get("entry") ?? "0", 10) || 0,
    q: values.get("q") ?? "",
    status: values.get("status") ?? "",
    prefix: values.get("runs") ?? "",
    all: values.has("all"),
  };
}

export function addressOf(run_: { workflow: string; run_id: string }): string {
  return `#/${encodeURIComponent(run_.workflow)}/${encodeURIComponent(run_.run_id)}`;
}

function address(): string {
  const values = new URLSearchParams();
  if (place.value !== null) values.set("at", String(place.value));
  if (tab.value !== "journal") values.set("tab", tab.value);
  if (picked.value) values.set("entry", String(picked.value));
  if (search.value) values.set("q", search.value);
  if (statuses.value) values.set("status", statuses.value);
  if (prefix.value) values.set("runs", prefix.value);
  if (everywhere.value) values.set("all", "1");
  const path = addressOf({ workflow: workflowName.value, run_id: runId.value }).replace(/\/$/, "");
  return values.size ? `${path}?${values}` : path;
}

function goTo(target: Address): void {
  batch(() => {
    if (target.workflow) workflowName.value = target.workflow;
    runId.value = target.run;
    place.value = target.at;
    tab.value = target.tab;
    picked.value = target.entry;
    search.value = target.q;
    statuses.value = target.status;
    prefix.value = target.prefix;
    everywhere.value = target.all;
    playing.value = false;
  });
}

/** Shows a run from its head. */
export function open(target: { workflow: string; run_id: string }): void {
  const before = location.hash;
  batch(() => {
    workflowName.value = target.workflow;
    runId.value = target.run_id;
    place.value = null;
    picked.value = 0;
    playing.value = false;
    pane.value = "run";
  });
  if (before !== addressOf(target)) history.pushState(null, "", address());
}

/** Shows a workflow, and none of its runs. */
export function choose(workflow: string): void {
  batch(() => {
    workflowName.value = workflow;
    runId.value = "";
    place.value = null;
    picked.value = 0;
  });
  history.pushState(null, "", address());
}

// ------------------------------------------------------------------------------------------------ moving in time
export function moveTo(target: number): void {
  const there = Math.max(0, Math.min(head.value, Math.round(target)));
  batch(() => {
    place.value = there >= head.value ? null : there;
    if (picked.value > 0) picked.value = there;
  });
}

export function play(): void {
  if (playing.value) {
    playing.value = false;
    return;
  }
  if (place.value === null) place.value = 0;
  playing.value = true;
  let exact = pos.value;
  let last = performance.now();
  const turn = (now: number): void => {
    if (!playing.value) return;
    if (Math.floor(exact) !== pos.value) exact = pos.value;
    exact += ((now - last) / 1000) * Math.max(8, head.value / 10); // all of it in ten seconds at most
    last = now;
    if (Math.floor(exact) !== pos.value) moveTo(Math.floor(exact));
    if (place.value === null) playing.value = false;
    else requestAnimationFrame(turn);
  };
  requestAnimationFrame(turn);
}

// ------------------------------------------------------------------------------------------------ keeping up
let watching: AbortController | null = null;

function nap(milliseconds: number, signal_: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal_.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

async function watch(id: string, signal_: AbortSignal): Promise<void> {
  const mine = new Journal();
  batch(() => {
    journal.value = mine;
    revision.value += 1;
    run.value = null;
    line.value = "loading";
  });
  let wait = 250;
  while (!signal_.aborted) {
    try {
      const known = await api.run(id, signal_);
      if (signal_.aborted) return;
      batch(() => {
        run.value = known;
        workflowName.value = known.workflow;
      });
      let ended = false;
      let due_ = 0;
      const told: Told[] = [];
      const flush = (): void => {
        clearTimeout(due_);
        due_ = 0;
        if (signal_.aborted) return;
        const news = told.splice(0);
        batch(() => {
          for (const one of news) {
            if (one.kind === "entry") mine.feed([one.entry]);
            else if (one.kind === "live") mine.tell(one.live);
            else ended = true;
          }
          if (line.value !== "live" && mine.head >= known.head) line.value = "live";
          if (news.length) revision.value += 1;
        });
        if (news.some((one) => one.kind === "entry" && isTurn(one.entry))) soon(id, signal_);
      };
      try {
        for await (const some of api.trace(id, mine.head, signal_)) {
          wait = 250;
          told.push(...some);
          due_ ||= setTimeout(flush, FLUSH) as unknown as number; // a long journal comes in thousands of pieces
        }
      } finally {
        flush();
      }
      if ((ended && mine.closedAt > 0) || still) {
        await refresh(id, signal_);
        line.value = "over";
        return;
      }
    } catch (error) {
      if (signal_.aborted) return;
      if (error instanceof Refusal && error.status === 404) {
        line.value = "missing";
        return;
      }
      if (error instanceof Refusal && error.status === 401) locked.value = true;
      line.value = "lost";
    }
    await nap(wait, signal_);
    wait = Math.min(3000, wait * 1.6);
  }
}

/** Looks at the run again: its waits and its end are the server's to tell. */
async function refresh(id: string, signal_: AbortSignal): Promise<void> {
  const known = await api.run(id, signal_);
  if (!signal_.aborted && runId.value === id) run.value = known;
}

let due = 0;

function soon(id: string, signal_: AbortSignal): void {
  if (due) return;
  due = setTimeout(() => {
    due = 0;
    if (!signal_.aborted) refresh(id, signal_).catch(() => undefined); // the line is lost, and says so itself
  }, 150) as unknown as number;
}

/** Whether an entry changes what the server has to tell of the run: its waits, its end. */
function isTurn(entry: Entry): boolean {
  return entry.kind !== "done" || entry.effects.some((one) => one.wait != null);
}

export async function lookAgain(): Promise<void> {
  if (watching !== null && runId.value) await refresh(runId.value, watching.signal).catch(complain);
}

function asked(): { workflow?: string; status?: string; prefix?: string } {
  return {
    workflow: everywhere.value ? undefined : workflowName.value || undefined,
    status: statuses.value || undefined,
    prefix: prefix.value || undefined,
  };
}

let seen = 0; // which question about runs was the last

export async function listRuns(): Promise<void> {
  const mine = ++seen;
  try {
    const many = Math.max(RUNS, Math.min(200, runs.value.length));
    const found = await api.runs({ ...asked(), limit: many });
    if (mine !== seen) return;
    batch(() => {
      runs.value = found.runs;
      older.value = found.next;
      reachable.value = true;
    });
  } catch (error) {
    if (error instanceof Refusal) complain(error);
    else reachable.value = false;
  }
}

export async function olderRuns(): Promise<void> {
  const mine = ++seen;
  const found = await api.runs({ ...asked(), limit: RUNS, after: older.value });
  if (mine !== seen) return;
  batch(() => {
    const known = new Set(runs.value.map((one) => one.run_id));
    runs.value = [...runs.value, ...found.runs.filter((one) => !known.has(one.run_id))];
    older.value = found.next;
  });
}

async function learn(): Promise<void> {
  const found = (await api.workflows()).workflows;
  batch(() => {
    workflows.value = found;
    reachable.value = true;
    if (!found.some((one) => one.name === workflowName.value)) workflowName.value = found[0]?.name ?? "";
  });
}

async function describe(name: string): Promise<void> {
  if (!name || details.peek().has(name)) return;
  const found = await api.workflow(name);
  details.value = new Map(details.peek()).set(name, found);
}

/** Begins to keep everything up to date. */
export async function begin(): Promise<void> {
  goTo(readAddress());
  addEventListener("popstate", () => goTo(readAddress()));
  addEventListener("hashchange", () => goTo(readAddress()));
  effect(() => {
    if (theme.value) document.documentElement.dataset.theme = theme.value;
    else delete document.documentElement.dataset.theme;
    localStorage.setItem("actorflow.theme", theme.value);
  });
  for (;;) {
    try {
      await learn();
      break;
    } catch (error) {
      if (error instanceof Refusal) complain(error);
      reachable.value = false;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
  effect(() => {
    const name = workflowName.value;
    void describe(name).catch(complain);
  });
  effect(() => {
    const name = run.value?.workflow ?? "";
    void describe(name).catch(complain);
  });
  effect(() => {
    const id = runId.value;
    watching?.abort();
    watching = null;
    if (!id) {
      batch(() => {
        journal.value = new Journal();
        run.value = null;
        line.value = "idle";
        revision.value = revision.peek() + 1;
      });
      return;
    }
    watching = new AbortController();
    const { signal: ends } = watching;
    untracked(() => void watch(id, ends));
  });
  effect(() => {
    asked();
    untracked(() => void listRuns());
  });
  let pending = 0;
  effect(() => {
    const target = address();
    clearTimeout(pending);
    pending = setTimeout(() => history.replaceState(null, "", target), 150) as unknown as number;
  });
  setInterval(() => {
    if (document.visibilityState === "visible") void listRuns();
  }, REFRESH);
  setInterval(() => (clock.value = Date.now() / 1000), 1000);
}
