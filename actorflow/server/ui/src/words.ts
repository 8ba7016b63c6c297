// Numbers, times and values as text.

import type { Effect, Entry, Json } from "./types";

export function seconds(value: number | null | undefined): string {
  if (value == null || !Number.isFinite(value)) return "–";
  if (value < 0.0995) return `${(value * 1000).toFixed(value < 0.00995 ? 1 : 0)} ms`;
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${value.toFixed(value < 10 ? 2 : 1)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  if (value < 86400) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86400)} d ${Math.floor((value % 86400) / 3600)} h`;
}

export function count(value: number): string {
  return value < 10_000 ? String(value) : value < 1e6 ? `${(value / 1000).toFixed(value < 1e5 ? 1 : 0)}k` : `${(value / 1e6).toFixed(1)}M`;
}

/** A value in a line of its own. */
export function brief(value: Json | undefined, room = 120): string {
  const text = value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value);
  return text.length > room ? `${text.slice(0, room - 1)}…` : text;
}

export const STATUS: Record<string, string> = {
  running: "running",
  waiting: "waiting",
  completed: "completed",
  failed: "failed",
  timed_out: "timed out",
  cancelled: "cancelled",
};

/** What an entry says, in a few words: a verb, and what it is about. */
export function telling(entry: Entry): { sign: string; verb: string; about: string; tone: string } {
  const { kind } = entry;
  const events = new Map<string, number>();
  for (const { event, kind: how } of entry.effects)
    if (event != null && how !== "collect" && how !== "gathered") events.set(event.type, (events.get(event.type) ?? 0) + 1);
  const sent = [...events].map(([type, many]) => (many > 1 ? `${type} ×${many}` : type)).join(", ");
  const waits = entry.effects.filter((one) => one.kind === "waiting").map((one) => one.name ?? "");
  const states = entry.effects.filter((one) => one.kind === "state" || one.kind === "commit").map((one) => one.name ?? "state");
  const about = [sent, waits.length ? `waits for ${waits.join(", ")}` : "", states.length ? `sets ${states.join(", ")}` : ""]
    .filter(Boolean)
    .join(" · ");
  switch (kind) {
    case "created":
      return { sign: "▸", verb: "start", about, tone: "plain" };
    case "event":
      return { sign: "→", verb: "from outside", about, tone: "plain" };
    case "ops":
      return waits.length
        ? { sign: "◔", verb: "asks", about, tone: "wait" }
        : { sign: "·", verb: "says", about, tone: "plain" };
    case "done":
      return { sign: "✓", verb: "done", about, tone: "good" };
    case "failed":
      return { sign: "✕", verb: `failed, attempt ${entry.attempt}`, about, tone: "bad" };
    case "recovered":
      return { sign: "✕", verb: "failed, handled", about, tone: "bad" };
    case "dropped":
      return { sign: "⌀", verb: "dropped", about, tone: "bad" };
    case "closed":
      return { sign: "■", verb: "end", about: typeOf(entry.value), tone: "plain" };
    default:
      return { sign: "·", verb: kind, about, tone: "plain" };
  }
}

function typeOf(value: Json): string {
  return value !== null && typeof value === "object" && !Array.isArray(value) && typeof value.type === "string" ? value.type : "";
}

/** What an effect says, in a few words. */
export function effectTelling(effect: Effect): string {
  const to = (effect.to ?? []).map((one) => one.step ?? "whoever waits for it");
  const name = effect.event?.type ?? effect.name ?? "";
  switch (effect.kind) {
    case "send":
    case "list":
    case "apart":
      return `sends ${name}${to.length ? ` to ${to.join(", ")}` : ""}`;
    case "publish":
      return `publishes ${name}`;
    case "prompt":
      return `asks with ${name}`;
    case "state":
      return `sets ${effect.name ?? "the state"}`;
    case "commit":
      return "commits the state";
    case "waiting":
      return `waits for ${effect.name ?? "an event"}${effect.seconds == null ? "" : ` for ${seconds(effect.seconds)}`}`;
    case "answer":
      return `gets ${name}`;
    case "gathered":
      return `gathers ${(effect.causes ?? []).length} events${to.length ? ` for ${to.join(", ")}` : ""}`;
    default:
      return `${effect.kind} ${name}`.trim();
  }
}

/** An entry as a test that plays the run again in virtual time. */
export function testOf(workflow: string, entries: readonly Entry[], result: Json | undefined, status: string): string {
  const used = new Set([workflow]);
  const event = (one: { type: string; value: { [key: string]: Json } }): string => {
    used.add(one.type.split(":").pop() as string);
    const fields = Object.entries(one.value).map(([name, value]) =>
      /^[\p{ID_Start}_][\p{ID_Continue}]*$/u.test(name) ? `${name}=${python(value)}` : `**{${python(name)}: ${python(value)}}`,
    );
    return `${one.type.split(":").pop()}(${fields.join(", ")})`;
  };
  const first = entries[0];
  const start = first?.effects.find((one) => one.event != null)?.event;
  const outside = entries
    .filter((entry) => entry.kind === "event")
    .flatMap((entry) =>
      entry.effects.flatMap((one) => (one.event ? [`        (${(entry.at - (first?.at ?? 0)).toFixed(3)}, ${event(one.event)}),`] : [])),
    );
  const started = start ? event(start) : "None";
  const builtin = [...used].filter((name) => ["StartEvent", "HumanResponseEvent", "Answer", "StopEvent"].includes(name));
  const own = [...used].filter((name) => !builtin.includes(name));
  const lines = [
    ...(builtin.filter((name) => name !== "Answer").length
      ? [`from actorflow import ${builtin.filter((name) => name !== "Answer").sort().join(", ")}`]
      : []),
    ...(builtin.includes("Answer") ? ["from actorflow.asking import Answer"] : []),
    "from actorflow.testing import Choices, simulate",
    "",
    `from flow import ${own.sort().join(", ")}  # where your workflow is`,
    "",
    "",
    `def test_${workflow.replace(/\W+/g, "_").toLowerCase()}_again() -> None:`,
    "    played = simulate(",
    `        ${workflow},`,
    `        ${started},`,
    ...(outside.length ? ["        outside=[", ...outside.map((one) => `    ${one}`), "        ],"] : []),
    "        schedule=Choices([]),  # first come, first served; choices of a failing schedule go here",
    "    )",
    status === "completed" ? `    assert played.result == ${python(result ?? null)}` : "    assert played.error is not None",
    "",
  ];
  return lines.join("\n");
}

function python(value: Json): string {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${python(one)}`).join(", ")}}`;
  return JSON.stringify(value);
}
