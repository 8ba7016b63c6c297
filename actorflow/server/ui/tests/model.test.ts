import assert from "node:assert/strict";
import { test } from "node:test";
import { differences, Journal, plain, StateFold, upTo } from "../src/model";
import type { Effect, Entry, Json } from "../src/types";

let clock = 0;

function entry(seq: number, kind: string, more: Partial<Entry> = {}): Entry {
  clock = seq;
  return { seq, at: seq, kind, step: null, invocation: null, attempt: 1, began: null, causes: [], effects: [], value: null, ...more };
}

function send(type: string, step: string, number: number): Effect {
  return { kind: "send", index: 0, event: { type, value: { n: number } }, to: [{ step, number }] };
}

const CHAIN = (): Entry[] => [
  entry(1, "created", { effects: [send("Start", "plan", 10)] }),
  entry(2, "done", { step: "plan", invocation: [10, 0], began: 1.5, causes: [10], effects: [send("Task", "write", 20), send("Task", "write", 21)] }),
  entry(3, "failed", { step: "write", invocation: [20, 1], began: 2.1, causes: [20] }),
  entry(4, "done", { step: "write", invocation: [21, 1], began: 2.2, causes: [21], effects: [{ kind: "publish", event: { type: "Word", value: {} } }] }),
  entry(5, "done", { step: "write", invocation: [20, 1], began: 3.5, attempt: 2, causes: [20] }),
  entry(6, "closed", { value: { type: "StopEvent", value: { result: 7 } } }),
];

function fed(entries: Entry[]): Journal {
  const journal = new Journal();
  journal.feed(entries);
  return journal;
}

test("a moment counts what is queued, running, done and failed after its entry", () => {
  const journal = fed(CHAIN());
  const at = (pos: number, step: string): (number | null | undefined)[] => {
    const one = journal.moment(pos).steps.get(step);
    return [one?.queued, one?.running, one?.done, one?.failed];
  };
  assert.deepEqual(at(1, "plan"), [0, 1, 0, 0]);
  assert.deepEqual(at(2, "plan"), [0, 0, 1, 0]);
  assert.deepEqual(at(2, "write"), [0, 2, 0, 0]);
  assert.deepEqual(at(3, "write"), [0, 2, 0, 1]); // the next attempt has begun before the next entry
  assert.deepEqual(at(4, "write"), [0, 1, 1, 1]);
  assert.deepEqual(at(6, "write"), [0, 0, 2, 1]);
  assert.equal(journal.moment(5).status, "running");
  assert.equal(journal.moment(6).status, "completed");
  assert.equal(journal.moment(5).steps.get("write")?.p50, (4 - 2.2 + (5 - 3.5)) / 2);
  assert.deepEqual([1, 2, 3].map((pos) => journal.sent("Task", pos)), [0, 2, 2]);
  assert.deepEqual(journal.streamed.map((one) => one.event.type), ["Word", "StopEvent"]);
});

test("entries that come twice, or before their turn, change nothing", () => {
  const journal = fed(CHAIN());
  journal.feed(CHAIN());
  journal.feed([entry(9, "done")]);
  assert.equal(journal.head, 6);
  assert.equal(journal.moment(6).steps.get("write")?.done, 2);
});

test("entry by entry is as all at once, at every position", () => {
  const whole = fed(CHAIN());
  const slow = new Journal();
  for (const one of CHAIN()) slow.feed([one]);
  for (let pos = 0; pos <= 6; pos += 1) assert.deepEqual(slow.moment(pos), whole.moment(pos));
});

test("an event's cause and its effects can be followed", () => {
  const journal = fed(CHAIN());
  assert.equal(journal.origin(20)?.seq, 2);
  assert.equal(journal.origin(20)?.step, "plan");
  assert.deepEqual(journal.consumedBy(20), [3, 5]);
});

test("what is told live is counted until its record says so, and is not counted twice", () => {
  const chain = CHAIN();
  const journal = fed(chain.slice(0, 2));
  assert.equal(journal.moment(2).steps.get("write")?.queued, 2);
  journal.tell({ kind: "started", step: "write", type: "Task", at: 2.1 });
  assert.equal(journal.moment(2).steps.get("write")?.running, 1);
  // Told of one event, recorded of the other: the guess goes over to the one that is left.
  journal.feed([{ ...entry(3, "done", { step: "write", invocation: [21, 1], began: 2.1, causes: [21] }) }]);
  const one = journal.moment(3).steps.get("write");
  assert.deepEqual([one?.queued, one?.running, one?.done], [1, 0, 1]);
  // A beginning that is told after its record begins nothing.
  journal.feed([entry(4, "done", { step: "write", invocation: [20, 1], began: 3.2, causes: [20], effects: [send("Draft", "write", 30)] })]);
  journal.tell({ kind: "started", step: "write", type: "Task", at: 3.2 });
  assert.equal(journal.moment(4).steps.get("write")?.running, 0);
  assert.equal(journal.moment(4).steps.get("write")?.queued, 1);
});

test("gathered events leave the queue as one", () => {
  const journal = fed([
    entry(1, "created", { effects: [send("Part", "join", -1), send("Part", "join", -2)] }),
    entry(2, "done", { step: "other", invocation: [5, 1], effects: [{ kind: "gathered", event: { type: "GatheredEvent", value: {} }, causes: [-1, -2], to: [{ step: "join", number: 40 }] }] }),
  ]);
  assert.equal(journal.moment(1).steps.get("join")?.queued, 2);
  assert.equal(journal.moment(2).steps.get("join")?.queued, 1);
});

test("a wait is open from its entry to its answer", () => {
  const ask: Effect[] = [
    { kind: "prompt", event: { type: "Ask", value: { prefix: "?" } } },
    { kind: "waiting", name: "Reply", seconds: 30, wait: "w1" },
  ];
  const journal = fed([
    entry(1, "created", { effects: [send("Start", "ask", 10)] }),
    entry(2, "ops", { step: "ask", invocation: [10, 0], began: 1.2, effects: ask }),
    entry(3, "ops", { step: "ask", invocation: [10, 0], began: 1.2, effects: [{ kind: "answer", event: { type: "Reply", value: { n: 1 } }, wait: "w1", name: "Reply" }] }),
    entry(4, "done", { step: "ask", invocation: [10, 0], began: 1.2 }),
  ]);
  assert.equal(journal.moment(2).status, "waiting");
  const [wait] = journal.moment(2).waits;
  assert.deepEqual([wait?.id, wait?.type, wait?.deadline, wait?.prompt?.type], ["w1", "Reply", 32, "Ask"]);
  assert.deepEqual([1, 3, 4].map((pos) => journal.moment(pos).waits.length), [0, 0, 0]);
  assert.equal(wait?.outcome, "answer");
  assert.equal(journal.moment(2).steps.get("ask")?.waiting, 1);
  assert.equal(journal.moment(3).steps.get("ask")?.waiting, 0);
});

test("the state folds to the same from any keyframe", () => {
  const fold = new StateFold();
  let whole: { [key: string]: Json } = {};
  const states: string[] = ["{}"];
  let random = 7;
  const draw = (n: number): number => (random = (random * 48271) % 2147483647) % n;
  for (let seq = 1; seq <= 1500; seq += 1) {
    const path = `k${draw(5)}.v${draw(4)}`;
    const [outer, inner] = path.split(".") as [string, string];
    if (draw(200) === 0) {
      whole = { fresh: { seq } };
      fold.add(seq, null, structuredClone(whole));
    } else {
      whole = { ...whole, [outer]: { ...(whole[outer] as object | undefined), [inner]: seq } };
      fold.add(seq, path, seq);
    }
    states.push(JSON.stringify(whole));
  }
  for (let seq = 1500; seq >= 0; seq -= 7) assert.deepEqual(fold.at(seq), JSON.parse(states[seq] as string));
  assert.equal(fold.changedAt(3), 3);
  assert.equal(fold.changedAt(0), 0);
});

test("names of the language mean nothing in a state", () => {
  const fold = new StateFold();
  fold.add(1, "__proto__.polluted", true);
  assert.equal(({} as { polluted?: boolean }).polluted, undefined);
  assert.equal(JSON.stringify(fold.at(1)), '{"__proto__":{"polluted":true}}');
});

test("differences are as small as they can be", () => {
  assert.deepEqual(differences({ a: { b: 1, c: [1, 2] }, d: 1 }, { a: { b: 2, c: [1, 2] }, e: null }), [
    { path: "a.b", before: 1, after: 2 },
    { path: "d", before: 1, after: undefined },
    { path: "e", before: undefined, after: null },
  ]);
});

test("tags of types are left out of what is shown", () => {
  assert.deepEqual(plain({ $: "flow:State", v: { at: { $: "datetime", v: "2026-01-01" }, n: [1] } }), { at: "2026-01-01", n: [1] });
});

test("upTo counts what is at most a limit", () => {
  assert.deepEqual([0, 1, 2, 5, 9].map((limit) => upTo([1, 2, 2, 5], limit)), [0, 1, 3, 4, 4]);
  assert.equal(clock > 0, true);
});
