// The server's HTTP API, as far as the page uses it.

import type { Entry, Fields, Json, Live, Run, WorkflowDetail, WorkflowInfo } from "./types";

/** What the server answered instead of what was asked for. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly field: string | null,
  ) {
    super(message);
  }
}

const TOKEN = "actorflow.token";

export const token = {
  get: (): string => sessionStorage.getItem(TOKEN) ?? "",
  set: (value: string): void => sessionStorage.setItem(TOKEN, value),
};

function headers(more: Record<string, string>): Record<string, string> {
  return token.get() ? { ...more, authorization: `Bearer ${token.get()}` } : more;
}

async function refusal(response: Response): Promise<Refusal> {
  const text = await response.text();
  try {
    const { error } = JSON.parse(text) as { error: { code: string; message: string; field: string | null } };
    return new Refusal(response.status, error.code, error.message, error.field ?? null);
  } catch {
    return new Refusal(response.status, "http", text || `the server answered ${response.status}`, null);
  }
}

/** What a server would have answered, by path: a picture that is looked at without one. */
const kept = document.getElementById("still")?.textContent;
export const still: (Record<string, Json> & { address: string }) | null = kept ? JSON.parse(kept) : null;

async function call<T>(method: string, path: string, body?: Json, signal?: AbortSignal): Promise<T> {
  if (still) {
    const found = still[path.split("?")[0] ?? ""];
    if (found) return found as T;
    throw new Refusal(404, "", "gone", null);
  }
  const response = await fetch(path, {
    method,
    signal: signal ?? null,
    headers: headers(body === undefined ? { accept: "application/json" } : { "content-type": "application/json" }),
    body: body === undefined ? null : JSON.stringify(body),
  });
  if (!response.ok) throw await refusal(response);
  return (response.status === 204 ? null : await response.json()) as T;
}

const part = encodeURIComponent;

function query(values: Record<string, string | number | undefined>): string {
  const kept = Object.entries(values).filter(([, value]) => value !== undefined && value !== "");
  return kept.length ? `?${kept.map(([name, value]) => `${name}=${part(String(value))}`).join("&")}` : "";
}

export interface RunsAsked {
  workflow?: string;
  status?: string;
  prefix?: string;
  limit?: number;
  after?: string;
}

export const api = {
  workflows: () => call<{ workflows: WorkflowInfo[] }>("GET", "api/workflows"),
  workflow: (name: string) => call<WorkflowDetail>("GET", `api/workflows/${part(name)}`),
  start: (name: string, start: Fields) => call<Run>("POST", `api/workflows/${part(name)}/runs`, { start }),
  runs: (asked: RunsAsked) => call<{ runs: Run[]; next: string }>("GET", `api/runs${query({ ...asked })}`),
  run: (id: string, signal?: AbortSignal) => call<Run>("GET", `api/runs/${part(id)}`, undefined, signal),
  answer: (id: string, wait: string, value: Fields) =>
    call<{ receipt: string }>("POST", `api/runs/${part(id)}/waits/${part(wait)}`, { value }),
  cancel: (id: string) => call<Run>("POST", `api/runs/${part(id)}/cancel`, {}),
  fork: (id: string, at: number, edit: { effect: number; value: Fields } | null) =>
    call<Run>("POST", `api/runs/${part(id)}/fork`, edit === null ? { at } : { at, edit }),
  download: (id: string): string => `api/runs/${part(id)}/journal?download=1`,
  trace,
};

export type Told = { kind: "entry"; entry: Entry } | { kind: "live"; live: Live } | { kind: "end" };

/** The journal as it grows. Ends where the server ends it; throws when the line breaks. */
async function* trace(id: string, after: number, signal: AbortSignal): AsyncGenerator<Told[]> {
  if (still) return void (yield (still[`api/runs/${id}/journal`] as unknown as Entry[]).map((entry) => ({ kind: "entry", entry })));
  const response = await fetch(`api/runs/${part(id)}/trace${query({ after })}`, {
    signal,
    headers: headers({ accept: "text/event-stream" }),
  });
  if (!response.ok || response.body === null) throw await refusal(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = blocks.pop() ?? "";
    const told = blocks.map(read).filter((one) => one !== null);
    yield told;
  }
}

function read(block: string): Told | null {
  let kind = "message";
  const data: string[] = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) kind = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
  }
  if (kind === "end") return { kind };
  if (data.length === 0) return null;
  if (kind === "entry") return { kind, entry: JSON.parse(data.join("\n")) as Entry };
  if (kind === "live") return { kind, live: JSON.parse(data.join("\n")) as Live };
  return null;
}
