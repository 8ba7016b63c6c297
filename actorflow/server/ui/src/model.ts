// A run's journal, folded: what the run was after any of its entries.
//
// A position is a number of entries: the moment from entry `p` until the next one. What is counted is kept as sorted
// columns of positions, so that a count at a position is a binary search, however long the journal. The state cannot be
// counted: it is folded forward from keyframes, which are as far apart as the state is large.

import type { Effect, Entry, Ev, Json, Live } from "./types";

export interface StepMoment {
  queued: number;
  running: number;
  waiting: number;
  done: number;
  failed: number;
  dropped: number;
  p50: number | null;
}

export interface OpenWait {
  id: string;
  step: string;
  type: string;
  prompt: Ev | null;
  openedAt: number;
  deadline: number | null;
  from: number;
  until: number;
  outcome: string;
  answer: Ev | null;
  invocation: number; // number of the event
}

export interface Span {
  step: string;
  attempt: number;
  queuedAt: number;
  began: number | null;
  ended: number | null;
  from: number; // the position from which it is seen to have begun
  seq: number; // of the entry that ended it, 0 while it goes on
  outcome: "open" | "done" | "failed" | "cut";
}

export interface Moment {
  pos: number;
  at: number;
  status: string;
  steps: Map<string, StepMoment>;
  waits: OpenWait[];
  closed: Ev | null;
}

export interface Origin {
  seq: number;
  effect: number;
  step: string | null;
  event: Ev | null;
}

const KEPT_TIMES = 1000;
const KEPT_UNTOLD = 64;
const NEAR = 0.01; // seconds between two clocks' times of one moment
const SENDS = new Set(["send", "apart", "list", "prompt", "recovered"]);
const STREAMED = new Set(["publish", "prompt"]);

/** How many of an ascending list are at most `limit`. */
export function upTo(sorted: readonly number[], limit: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sorted[middle] as number) <= limit) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Puts a number where it belongs; nearly always that is close to the end. */
function insert(sorted: number[], value: number): void {
  let at = sorted.length;
  while (at > 0 && (sorted[at - 1] as number) > value) at -= 1;
  if (at === sorted.length) sorted.push(value);
  else sorted.splice(at, 0, value);
}

function remove(sorted: number[], value: number): void {
  const at = sorted.lastIndexOf(value);
  if (at >= 0) sorted.splice(at, 1);
}

/** The middle of some numbers, which it sorts. */
function median(values: readonly number[]): number | null {
  if (values.length === 0) return null;
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length >> 1;
  const upper = sorted[middle] as number;
  return sorted.length % 2 ? upper : ((sorted[middle - 1] as number) + upper) / 2;
}

class Column {
  arrived: number[] = [];
  left: number[] = []; // taken out of the queue: begun, gathered, or dropped
  begun: number[] = [];
  stopped: number[] = [];
  waited: number[] = [];
  resumed: number[] = [];
  done: number[] = [];
  failed: number[] = [];
  dropped: number[] = [];
  timed: number[] = [];
  took: number[] = [];
  untold: number[] = []; // when those began of whose beginning only their records have told
  pending = new Map<number, string>(); // events that no body is known to work on, by number, with their classes

  moment(pos: number, over: boolean): StepMoment {
    const timed = upTo(this.timed, pos);
    const apart = (more: readonly number[], less: readonly number[]): number =>
      over ? 0 : Math.max(0, upTo(more, pos) - upTo(less, pos));
    return {
      queued: apart(this.arrived, this.left),
      running: apart(this.begun, this.stopped),
      waiting: apart(this.waited, this.resumed),
      done: upTo(this.done, pos),
      failed: upTo(this.failed, pos),
      dropped: upTo(this.dropped, pos),
      p50: median(this.took.slice(Math.max(0, timed - KEPT_TIMES), timed)),
    };
  }
}

interface Change {
  seq: number;
  path: string | null;
  value: Json;
}

/** The state after any entry. */
export class StateFold {
  #changes: Change[] = [];
  #seqs: number[] = [];
  #keys: number[] = [0];
  #keyframes: Json[] = [{}];
  #latest: Json = {};
  #since = 0;
  #room = 64;
  #shown: { count: number; value: Json } | null = null;

  add(seq: number, path: string | null, value: Json): void {
    this.#changes.push({ seq, path, value });
    this.#seqs.push(seq);
    this.#latest = written(this.#latest, path, value);
    this.#since += 1;
    if (this.#since >= this.#room) {
      this.#keys.push(this.#changes.length);
      this.#keyframes.push(structuredClone(this.#latest));
      this.#since = 0;
      this.#room = Math.max(64, weight(this.#latest));
    }
  }

  /** How many changes there were. */
  get size(): number {
    return this.#changes.length;
  }

  /** The state; not to be changed. */
  at(pos: number): Json {
    const count = upTo(this.#seqs, pos);
    if (this.#shown?.count === count) return this.#shown.value;
    const key = upTo(this.#keys, count) - 1;
    let value = structuredClone(this.#keyframes[key] as Json);
    for (const change of this.#changes.slice(this.#keys[key], count)) value = written(value, change.path, change.value);
    this.#shown = { count, value };
    return value;
  }

  /** Position of the newest change at or before a position; 0 where there is none. */
  changedAt(pos: number): number {
    const count = upTo(this.#seqs, pos);
    return count ? (this.#seqs[count - 1] as number) : 0;
  }
}

function weight(value: Json): number {
  if (value === null || typeof value !== "object") return 1;
  let sum = 1;
  for (const one of Object.values(value)) sum += weight(one);
  return sum;
}

/** Writes a value at a dotted path, into the state itself where that can be. */
function written(state: Json, path: string | null, value: Json): Json {
  const copy = structuredClone(value);
  if (path === null || path === "") return copy;
  const root: Json = state !== null && typeof state === "object" ? state : {};
  const names = path.split(".");
  const last = names.pop() as string;
  let at = root as Record<string, Json>;
  for (const name of names) {
    const inner = Object.hasOwn(at, name) ? at[name] : undefined;
    if (inner === null || typeof inner !== "object") define(at, name, {});
    at = at[name] as Record<string, Json>;
  }
  define(at, last, copy);
  return root;
}

function define(target: Record<string, Json>, name: string, value: Json): void {
  Object.defineProperty(target, name, { value, writable: true, enumerable: true, configurable: true });
}

/** A journal as far as it has been read. */
export class Journal {
  readonly entries: Entry[] = [];
  readonly spans: Span[] = [];
  readonly waits: OpenWait[] = [];
  readonly state = new StateFold();
  readonly streamed: { seq: number; event: Ev }[] = [];
  readonly failures: number[] = [];
  readonly published: number[] = [];
  closedAt = 0;
  #columns = new Map<string, Column>();
  #pills = new Map<string, number[]>();
  #times: number[] = [];
  #origins = new Map<number, Origin>();
  #consumers = new Map<number, number[]>();
  #arrivals = new Map<number, { step: string; seq: number; at: number }>();
  #open = new Map<number, Span>(); // by the number of the event, which no other step has
  #begunOnce = new Set<number>();
  #guesses = new Map<number, string>(); // of events, on which steps seem to work
  #asking = new Map<number, OpenWait[]>();

  get head(): number {
    return this.entries.length;
  }

  get began(): number {
    return this.#times[0] ?? 0;
  }

  get last(): number {
    return this.#times[this.#times.length - 1] ?? 0;
  }

  /** The entry that a position is after. */
  entry(pos: number): Entry | null {
    return this.entries[pos - 1] ?? null;
  }

  /** Where an event came from. */
  origin(number: number): Origin | null {
    return this.#origins.get(number) ?? null;
  }

  /** Numbers of the entries that worked on an event. */
  consumedBy(number: number): readonly number[] {
    return this.#consumers.get(number) ?? [];
  }

  /** The position at a time: how many entries were written until then. */
  posAt(time: number): number {
    return upTo(this.#times, time);
  }

  /** How many events of a class had been sent. */
  sent(type: string, pos: number): number {
    return upTo(this.#pills.get(type) ?? [], pos);
  }

  /** Everything that is counted, at a position. */
  moment(pos: number): Moment {
    const over = this.closedAt > 0 && pos >= this.closedAt;
    const steps = new Map<string, StepMoment>();
    for (const [name, column] of this.#columns) steps.set(name, column.moment(pos, over));
    const waits = over ? [] : this.waits.filter((wait) => wait.from <= pos && pos < wait.until);
    const last = over ? this.entry(this.closedAt) : null;
    const closed = last === null ? null : eventOf(last.value);
    const busy = [...steps.values()].some((one) => one.queued > 0 || one.running > one.waiting);
    return {
      pos,
      at: this.entry(pos)?.at ?? this.began,
      status: over ? endOf(closed) : waits.length > 0 && !busy ? "waiting" : "running",
      steps,
      waits,
      closed,
    };
  }

  /** Takes the next entries; those that are known already are passed over. */
  feed(entries: readonly Entry[]): void {
    for (const entry of entries) {
      if (entry.seq !== this.head + 1) continue;
      this.entries.push(entry);
      this.#times.push(Math.max(entry.at, this.last)); // a clock that was set back does not turn the journal round
      this.#take(entry);
    }
  }

  /** Takes what is told of a run at work, and is in no entry yet: that a step has begun with an event of a class. */
  tell(live: Live): void {
    if (live.kind !== "started" || live.step === null || this.closedAt) return;
    const { pending, untold } = this.#column(live.step);
    const late = untold.findIndex((began) => Math.abs(began - live.at) < NEAR);
    if (late >= 0) {
      untold.splice(late, 1); // its record was faster
      return;
    }
    let number: number | undefined;
    for (const [one, type] of pending) {
      number ??= one; // the oldest, where none is of the class
      if (type === live.type) {
        number = one;
        break;
      }
    }
    if (number === undefined) return;
    this.#begin(number, live.step, live.at, this.#open.get(number)?.attempt ?? 1);
    this.#guesses.set(number, live.step);
  }

  /** Takes back that a body works on an event: it works on another one of the same step. */
  #takeBack(step: string): void {
    const number = [...this.#guesses].findLast(([, one]) => one === step)?.[0];
    const span = number === undefined ? undefined : this.#open.get(number);
    if (number === undefined || span === undefined || span.began === null) return;
    this.#column(step).untold.pop(); // the beginning that was told was this one's
    const column = this.#column(step);
    remove(column.begun, span.from);
    if (span.attempt === 1) {
      remove(column.left, span.from);
      this.#begunOnce.delete(number);
    }
    span.began = null;
    this.#guesses.delete(number);
    column.pending.set(number, this.#origins.get(number)?.event?.type ?? "");
  }

  #column(step: string): Column {
    let column = this.#columns.get(step);
    if (column === undefined) {
      column = new Column();
      this.#columns.set(step, column);
    }
    return column;
  }

  #take(entry: Entry): void {
    const { seq, step, invocation } = entry;
    for (const number of entry.causes) append(this.#consumers, number, seq);
    if (step !== null && invocation !== null) this.#worked(entry, step, invocation);
    entry.effects.forEach((effect, index) => this.#effect(entry, effect, index));
    if (step !== null && invocation !== null && entry.kind !== "ops") this.#closeWaits(invocation[0], seq, "over");
    if (entry.kind === "failed" || entry.kind === "recovered") this.failures.push(seq);
    if (entry.kind === "closed") this.#close(entry);
  }

  #worked(entry: Entry, step: string, invocation: [number, number]): void {
    const { seq, at, kind } = entry;
    const [number] = invocation;
    const column = this.#column(step);
    if (!this.#guesses.delete(number) && entry.began !== null && this.#open.get(number)?.began == null) {
      if (column.untold.push(entry.began) > KEPT_UNTOLD) column.untold.shift();
      this.#takeBack(step);
    }
    const span = this.#begin(number, step, entry.began, entry.attempt);
    if (kind === "ops") return;
    if (!this.#begunOnce.has(number)) {
      // Nobody knows when it began, or it never did.
      this.#begunOnce.add(number);
      column.pending.delete(number);
      insert(column.left, seq);
    }
    if (span.began !== null) column.stopped.push(seq);
    span.ended = at;
    span.seq = seq;
    this.#open.delete(number);
    if (kind === "done") {
      span.outcome = "done";
      column.done.push(seq);
      if (entry.began !== null) {
        column.timed.push(seq);
        column.took.push(at - entry.began);
      }
    } else {
      span.outcome = "failed";
      (kind === "dropped" ? column.dropped : column.failed).push(seq);
    }
    if (kind === "failed") {
      this.#open.set(number, this.#made(step, entry.attempt + 1, at));
      column.pending.set(number, this.#origins.get(number)?.event?.type ?? "");
    } else this.#arrivals.delete(number);
  }

  #made(step: string, attempt: number, queuedAt: number): Span {
    const span: Span = { step, attempt, queuedAt, began: null, ended: null, from: 0, seq: 0, outcome: "open" };
    this.spans.push(span);
    return span;
  }

  /** The execution that is under way, which began at a time as far as that is known. */
  #begin(number: number, step: string, began: number | null, attempt: number): Span {
    let span = this.#open.get(number);
    if (span === undefined) {
      span = this.#made(step, attempt, this.#arrivals.get(number)?.at ?? began ?? this.last);
      this.#open.set(number, span);
    }
    if (began !== null) {
      if (span.began === null) {
        const from = Math.max(this.#arrivals.get(number)?.seq ?? 0, upTo(this.#times, began));
        span.from = from;
        const column = this.#column(step);
        column.pending.delete(number);
        insert(column.begun, from);
        if (!this.#begunOnce.has(number)) {
          this.#begunOnce.add(number);
          insert(column.left, from);
        }
      }
      span.began = began;
      span.attempt = attempt;
    }
    return span;
  }

  #effect(entry: Entry, effect: Effect, index: number): void {
    const { seq, at, step } = entry;
    const event = effect.event ?? null;
    for (const number of effect.causes ?? []) {
      append(this.#consumers, number, seq);
      const arrival = this.#arrivals.get(number);
      if (arrival !== undefined) {
        insert(this.#column(arrival.step).left, seq);
        this.#column(arrival.step).pending.delete(number);
        this.#arrivals.delete(number);
      }
    }
    for (const to of effect.to ?? []) {
      this.#origins.set(to.number, { seq, effect: index, step, event });
      if (to.step !== null) {
        this.#arrivals.set(to.number, { step: to.step, seq, at });
        this.#column(to.step).arrived.push(seq);
        if (to.number > 0) this.#column(to.step).pending.set(to.number, event?.type ?? "");
      }
    }
    if (event !== null && SENDS.has(effect.kind)) {
      const sent = this.#pills.get(event.type);
      if (sent === undefined) this.#pills.set(event.type, [seq]);
      else sent.push(seq);
    }
    if (event !== null && STREAMED.has(effect.kind)) {
      this.streamed.push({ seq, event });
      if (this.published[this.published.length - 1] !== seq) this.published.push(seq);
    }
    if (effect.kind === "state") this.state.add(seq, effect.path ?? effect.name ?? null, plain(effect.value ?? null));
    if (effect.kind === "commit") this.state.add(seq, null, plain(effect.value ?? null));
    if (effect.kind === "waiting" && entry.invocation !== null && step !== null) {
      const before = index > 0 ? entry.effects[index - 1] : undefined;
      this.#column(step).waited.push(seq);
      const wait: OpenWait = {
        id: effect.wait ?? `${entry.invocation.join("-")}-${seq}-${index}`,
        step,
        type: effect.path ?? effect.name ?? "",
        prompt: before?.kind === "prompt" ? (before.event ?? null) : null,
        openedAt: at,
        deadline: effect.seconds == null ? null : at + effect.seconds,
        from: seq,
        until: Infinity,
        outcome: "open",
        answer: null,
        invocation: entry.invocation[0],
      };
      this.waits.push(wait);
      const beside = this.#asking.get(wait.invocation);
      if (beside === undefined) this.#asking.set(wait.invocation, [wait]);
      else beside.push(wait);
    }
    if (effect.wait != null && effect.kind !== "waiting") {
      const mine = this.#asking.get(entry.invocation?.[0] ?? 0) ?? this.waits;
      const open = mine.find((wait) => wait.id === effect.wait && wait.outcome === "open");
      if (open !== undefined) this.#closeWait(open, seq, effect.kind, effect.kind === "answer" ? event : null);
    }
  }

  #closeWait(wait: OpenWait, seq: number, outcome: string, answer: Ev | null): void {
    wait.until = seq;
    wait.outcome = outcome;
    wait.answer = answer;
    this.#column(wait.step).resumed.push(seq);
  }

  #closeWaits(invocation: number, seq: number, outcome: string): void {
    for (const wait of this.#asking.get(invocation) ?? [])
      if (wait.outcome === "open") this.#closeWait(wait, seq, outcome, null);
    this.#asking.delete(invocation);
  }

  #close(entry: Entry): void {
    this.closedAt = entry.seq;
    for (const wait of this.waits) if (wait.outcome === "open") this.#closeWait(wait, entry.seq, "over", null);
    const end = eventOf(entry.value);
    if (end !== null) {
      this.streamed.push({ seq: entry.seq, event: end });
      this.published.push(entry.seq);
      if (endOf(end) === "failed") {
        this.failures.push(entry.seq);
        const step = end.value.step_name;
        if (typeof step === "string" && this.#columns.has(step)) this.#column(step).failed.push(entry.seq);
      }
    }
    for (const span of this.#open.values()) {
      span.ended = entry.at;
      span.seq = entry.seq;
      span.outcome = end !== null && endOf(end) === "failed" && end.value.step_name === span.step ? "failed" : "cut";
    }
    this.#open.clear();
  }
}

function append(map: Map<number, number[]>, key: number, value: number): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else if (list[list.length - 1] !== value) list.push(value);
}

/** A value as an event, where it is one. */
export function eventOf(value: Json): Ev | null {
  if (value === null || typeof value !== "object" || Array.isArray(value) || typeof value.type !== "string") return null;
  const fields = value.value;
  return fields !== null && typeof fields === "object" && !Array.isArray(fields)
    ? { type: value.type, value: fields }
    : null;
}

/** A value without the names of the types that it is made of. */
export function plain(value: Json): Json {
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(plain);
  const names = Object.keys(value);
  if (names.length === 2 && typeof value.$ === "string" && "v" in value) return plain(value.v as Json);
  const copy: { [key: string]: Json } = {};
  for (const name of names) define(copy, name, plain(value[name] as Json));
  return copy;
}

/** What a terminal event says of its run. */
export function endOf(event: Ev | null): string {
  const type = event?.type.split(/[.:]/).pop() ?? "";
  if (type === "WorkflowFailedEvent") return "failed";
  if (type === "WorkflowTimedOutEvent") return "timed_out";
  if (type === "WorkflowCancelledEvent") return "cancelled";
  return "completed";
}

export interface Difference {
  path: string;
  before: Json | undefined;
  after: Json | undefined;
}

/** Where two states differ, down to what is equal or no longer of one kind. */
export function differences(before: Json | undefined, after: Json | undefined, path = ""): Difference[] {
  if (before === after) return [];
  if (isTree(before) && isTree(after) && Array.isArray(before) === Array.isArray(after)) {
    const names = new Set([...Object.keys(before), ...Object.keys(after)]);
    const found: Difference[] = [];
    for (const name of names)
      found.push(...differences(own(before, name), own(after, name), path ? `${path}.${name}` : name));
    return found;
  }
  return [{ path, before, after }];
}

function isTree(value: Json | undefined): value is { [key: string]: Json } {
  return value !== null && typeof value === "object";
}

function own(tree: { [key: string]: Json }, name: string): Json | undefined {
  return Object.hasOwn(tree, name) ? tree[name] : undefined;
}
