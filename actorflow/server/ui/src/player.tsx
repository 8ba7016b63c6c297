// Above the graph: what run it is, the moment shown, and what can be done with either.

import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { api } from "./api";
import { Form } from "./form";
import { eventOf } from "./model";
import { copy, runAgain } from "./runs";
import {
  clock, complain, head, journal, line, listRuns, lookAgain, moveTo, open, place, play, playing, pos, revision, run, runId, say, schemaOf, status, waits,
} from "./store";
import type { Ev } from "./types";
import { seconds, STATUS, testOf } from "./words";

/** Number of the entry that a fork would be made after; 0 for none. */
export const forking = signal(0);

export function Player(): JSX.Element {
  void revision.value;
  const known = run.value;
  const over = journal.value.closedAt > 0;
  const at = place.value === null && !over && head.value ? clock.value : (journal.value.entry(pos.value)?.at ?? journal.value.began);
  const entry = journal.value.entry(pos.value);
  return (
    <header class="player">
      <div class="player-line">
        <h1 class="run-title" title={runId.value}>
          {runId.value}
        </h1>
        <span class={`word chip ${status.value}`} role="status" aria-label="status of the run">
          {STATUS[status.value] ?? status.value}
        </span>
        {place.value === null ? (
          over ? null : <LineSign />
        ) : (
          <button type="button" class="chip past" onClick={() => moveTo(head.value)}>
            in the past: {over ? "to the end" : "to now"}
          </button>
        )}
        {known?.forked_from ? <Origin from={known.forked_from} /> : null}
        <span class="spring" />
        <Actions over={over} />
      </div>
      <div class="player-line">
        <button type="button" class="play" aria-label={playing.value ? "pause" : "play"} onClick={play} disabled={head.value === 0}>
          {playing.value ? "❚❚" : "▶"}
        </button>
        <input
          type="range"
          aria-label="moment of the run"
          aria-valuetext={`entry ${pos.value} of ${head.value}`}
          min={0}
          max={Math.max(1, head.value)}
          value={pos.value}
          onInput={(event) => {
            playing.value = false;
            moveTo(event.currentTarget.valueAsNumber);
          }}
        />
        <output class="moment">
          <span class="n">
            {pos.value}/{head.value}
          </span>
          <span class="t">{seconds(Math.max(0, at - journal.value.began))}</span>
          <span class="where">{entry?.step ?? ""}</span>
        </output>
      </div>
    </header>
  );
}

function LineSign(): JSX.Element | null {
  if (line.value === "live") return <span class="chip live">live</span>;
  if (line.value === "loading") return <span class="chip">loading…</span>;
  if (line.value === "lost") return <span class="chip lost">connection lost, trying again…</span>;
  return null;
}

function Origin({ from }: { from: unknown }): JSX.Element {
  const [id, at] = Array.isArray(from) ? (from as [string, number]) : [String(from), null];
  return (
    <button
      type="button"
      class="chip"
      onClick={() => {
        open({ workflow: run.value?.workflow ?? "", run_id: id });
      }}
    >
      forked from {id}
      {at === null ? "" : ` at ${at}`}
    </button>
  );
}

function Actions({ over }: { over: boolean }): JSX.Element {
  const [sure, setSure] = useState(false);
  useEffect(() => setSure(false), [runId.value]);
  const cancel = async (): Promise<void> => {
    if (!sure) return setSure(true);
    setSure(false);
    try {
      run.value = await api.cancel(runId.value);
      void listRuns();
    } catch (error) {
      complain(error);
    }
  };
  return (
    <div class="actions" role="group" aria-label="what can be done with the run">
      {over ? null : (
        <button type="button" class={sure ? "danger" : ""} onClick={() => void cancel()} onBlur={() => setSure(false)}>
          {sure ? "Really cancel" : "Cancel"}
        </button>
      )}
      {over ? (
        <button type="button" onClick={runAgain}>
          Run again
        </button>
      ) : null}
      <button type="button" onClick={() => (forking.value = Math.max(1, Math.min(pos.value, over ? head.value - 1 : head.value)))} disabled={head.value === 0}>
        Fork here
      </button>
      <a class="button" href={api.download(runId.value)} download={`${runId.value}.ndjson`}>
        Download
      </a>
      <button
        type="button"
        onClick={() => {
          const text = testOf(run.value?.workflow ?? "", journal.value.entries, run.value?.result, status.value);
          void copy(text, "The test");
        }}
      >
        Copy as test
      </button>
    </div>
  );
}

/** Asks what a fork should change, and makes it. */
export function Fork(): JSX.Element | null {
  const dialog = useRef<HTMLDialogElement>(null);
  const at = forking.value;
  useEffect(() => {
    if (at && !dialog.current?.open) dialog.current?.showModal();
  }, [at]);
  const [chosen, choose] = useState(-1);
  useEffect(() => choose(-1), [at]);
  if (at === 0) return null;
  const entry = journal.value.entry(at);
  const events = (entry?.effects ?? []).flatMap((effect, k) =>
    effect.event && ["send", "apart", "publish", "answer"].includes(effect.kind) ? [{ index: effect.index ?? k, event: effect.event }] : [],
  );
  const edited: Ev | null = events.find((one) => one.index === chosen)?.event ?? null;
  const schema = edited ? schemaOf(edited.type) : null;
  const make = async (edit: { effect: number; value: Ev["value"] } | null): Promise<void> => {
    const made = await api.fork(runId.value, at, edit);
    forking.value = 0;
    open(made);
    say(`Forked at entry ${at}: this is the new run.`);
    void listRuns();
  };
  return (
    <dialog ref={dialog} aria-labelledby="fork-title" onClose={() => (forking.value = 0)}>
      <h2 id="fork-title">Fork after entry {at}</h2>
      <p class="hint">
        A new run that has lived through the first {at} {at === 1 ? "entry" : "entries"} of {runId.value}, and goes on from there. This run stays as it is.
      </p>
      {events.length ? (
        <div class="field">
          <label for="fork-event">with an edited event</label>
          <select id="fork-event" value={String(chosen)} onChange={(event) => choose(Number(event.currentTarget.value))}>
            <option value="-1">none, just as it was</option>
            {events.map((one) => (
              <option key={one.index} value={String(one.index)}>
                {one.event.type}
              </option>
            ))}
          </select>
        </div>
      ) : (
        <p class="hint">Entry {at} has no event that could be edited.</p>
      )}
      {edited ? (
        <Form
          key={`${at}:${chosen}`}
          id="fork"
          schema={schema ?? { title: edited.type, type: "object" }}
          initial={edited.value}
          verb="Fork"
          root="edit.value"
          submit={(value) => make({ effect: chosen, value })}
        >
          <Close dialog={dialog} />
        </Form>
      ) : (
        <div class="form-foot">
          <button type="button" class="primary" onClick={() => void make(null).catch((error) => (dialog.current?.close(), complain(error)))}>
            Fork
          </button>
          <Close dialog={dialog} />
        </div>
      )}
    </dialog>
  );
}

function Close({ dialog }: { dialog: { current: HTMLDialogElement | null } }): JSX.Element {
  return (
    <button type="button" onClick={() => dialog.current?.close()}>
      Not now
    </button>
  );
}

// ------------------------------------------------------------------------------------------------ waits
/** The events that the run waits for, each with the form of an answer. */
export function Waits(): JSX.Element | null {
  const [hidden, hide] = useState<ReadonlySet<string>>(new Set());
  const shown = waits.value.filter((wait) => !hidden.has(wait.id));
  if (waits.value.length === 0) return null;
  return (
    <div class="waits" role="region" aria-label="the run waits for you">
      {shown.slice(0, 3).map((wait) => (
        <section class="wait" key={wait.id} aria-label={`${wait.step} waits for ${wait.type}`}>
          <div class="wait-head">
            <span>
              <b>{wait.step}</b> waits for <b>{wait.type}</b>
            </span>
            <button type="button" class="quiet" aria-label="answer later" onClick={() => hide(new Set([...hidden, wait.id]))}>
              ✕
            </button>
          </div>
          {wait.prompt ? <Prompt event={wait.prompt} /> : null}
          {wait.deadline === null ? null : (
            <p class={wait.deadline - clock.value < 30 ? "hint bad-text" : "hint"}>
              {wait.deadline > clock.value ? `${seconds(wait.deadline - clock.value)} left` : "its time is up"}
            </p>
          )}
          <Form
            id={`wait-${wait.id}`}
            schema={wait.schema}
            verb="Answer"
            root="value"
            submit={async (value) => {
              const { receipt } = await api.answer(runId.value, wait.id, value);
              say(receipt === "duplicate" ? "That was answered already." : "Answered.");
              hide(new Set([...hidden, wait.id]));
              await lookAgain();
            }}
          />
        </section>
      ))}
      {waits.value.length > shown.length || shown.length > 3 ? (
        <button type="button" class="chip" onClick={() => hide(new Set())}>
          {waits.value.length} {waits.value.length === 1 ? "wait is" : "waits are"} open: show
        </button>
      ) : null}
    </div>
  );
}

function Prompt({ event }: { event: Ev }): JSX.Element {
  const { value } = event;
  const known = ["prefix", "prompt", "question", "message", "text"].find((name) => typeof value[name] === "string");
  const rest = Object.entries(value).filter(([name, one]) => name !== known && name !== "ask_id" && one !== null && eventOf(one) === null);
  return (
    <div class="prompt">
      {known ? <p>{String(value[known])}</p> : null}
      {rest.length ? <pre>{rest.map(([name, one]) => `${name}: ${typeof one === "string" ? one : JSON.stringify(one)}`).join("\n")}</pre> : null}
    </div>
  );
}

