// On the right: the entries of the journal, what was streamed, the state, what went wrong, and the result.

import { computed, signal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { type Difference, differences, plain, upTo } from "./model";
import { forking } from "./player";
import { head, journal, moment, moveTo, picked, place, pos, revision, run, search, status, type Tab, tab } from "./store";
import type { Effect, Entry, Json } from "./types";
import { brief, effectTelling, seconds, telling } from "./words";

const ROW = 26;
const BEYOND = 8; // rows drawn beyond what is seen

// ------------------------------------------------------------------------------------------------ which entries
const texts: { of: object | null; lines: string[] } = { of: null, lines: [] };

/** What is searched of an entry. */
function textOf(index: number): string {
  const known = journal.value;
  if (texts.of !== known) {
    texts.of = known;
    texts.lines = [];
  }
  let text = texts.lines[index];
  if (text === undefined) {
    const entry = known.entries[index] as Entry;
    const told = telling(entry);
    text = `${entry.seq} step:${entry.step ?? ""} ${entry.kind} ${told.verb} ${told.about} ${JSON.stringify(entry.effects)} ${JSON.stringify(entry.value)}`.toLowerCase();
    texts.lines[index] = text;
  }
  return text;
}

const matching = computed<number[] | null>(() => {
  void revision.value;
  const wanted = search.value.trim().toLowerCase();
  if (wanted === "") return null;
  const found: number[] = [];
  const words = wanted.split(/\s+/);
  for (let k = 0; k < journal.value.head; k += 1) {
    const text = textOf(k);
    // A step is named whole.
    if (words.every((word) => (word.startsWith("step:") ? text.includes(`${word} `) : text.includes(word)))) found.push(k + 1);
  }
  return found;
});

const rows = computed<{ count: number; at: (index: number) => number }>(() => {
  const list = matching.value;
  if (list === null) return { count: pos.value, at: (index) => index + 1 };
  return { count: upTo(list, pos.value), at: (index) => list[index] as number };
});

// ------------------------------------------------------------------------------------------------ the pane
const TITLES: Record<Tab, string> = { journal: "Journal", stream: "Stream", state: "State", errors: "Errors", result: "Result" };

export function Right(): JSX.Element {
  const names = Object.keys(TITLES) as Tab[];
  void revision.value;
  const known = journal.value;
  const counts: Partial<Record<Tab, number>> = {
    journal: pos.value,
    stream: upTo(known.streamed.map((one) => one.seq), pos.value),
    errors: upTo(known.failures, pos.value),
  };
  const turn = (event: KeyboardEvent): void => {
    const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (by === 0) return;
    event.preventDefault();
    event.stopPropagation();
    const next = names[(names.indexOf(tab.value) + by + names.length) % names.length] as Tab;
    tab.value = next;
    document.getElementById(`tab-${next}`)?.focus();
  };
  return (
    <aside class="pane pane-journal" aria-label="journal and state">
      <div class="tabs" role="tablist" aria-label="what is shown of the run" onKeyDown={turn}>
        {names.map((name) => (
          <button
            key={name}
            id={`tab-${name}`}
            type="button"
            role="tab"
            aria-selected={tab.value === name}
            aria-controls="shown"
            tabIndex={tab.value === name ? 0 : -1}
            onClick={() => (tab.value = name)}
          >
            {TITLES[name]}
            {counts[name] ? <span class={name === "errors" ? "badge bad" : "badge"}>{counts[name]}</span> : null}
          </button>
        ))}
      </div>
      <div id="shown" role="tabpanel" aria-labelledby={`tab-${tab.value}`} class="shown">
        {tab.value === "journal" ? <Entries /> : null}
        {tab.value === "stream" ? <Streamed /> : null}
        {tab.value === "state" ? <State /> : null}
        {tab.value === "errors" ? <Errors /> : null}
        {tab.value === "result" ? <Result /> : null}
      </div>
    </aside>
  );
}

// ------------------------------------------------------------------------------------------------ a windowed list
function Windowed(props: { label: string; count: number; row: (index: number) => JSX.Element; follow: boolean }): JSX.Element {
  const ref = useRef<HTMLDivElement>(null);
  const seen = useRef(signal({ top: 0, height: 600 })).current;
  useEffect(() => {
    const element = ref.current;
    if (element !== null && props.follow) element.scrollTop = props.count * ROW;
  }, [props.count, props.follow]);
  useEffect(() => {
    const element = ref.current;
    if (element === null) return;
    const watch = new ResizeObserver(() => (seen.value = { top: element.scrollTop, height: element.clientHeight }));
    watch.observe(element);
    return () => watch.disconnect();
  }, []);
  const { top, height } = seen.value;
  const from = Math.max(0, Math.min(Math.floor(top / ROW) - BEYOND, props.count - 1));
  const to = Math.min(props.count, Math.ceil((top + height) / ROW) + BEYOND);
  const shown: JSX.Element[] = [];
  for (let k = from; k < to; k += 1) shown.push(props.row(k));
  return (
    <div
      class="list"
      ref={ref}
      role="list"
      aria-label={props.label}
      tabIndex={0}
      onScroll={(event) => (seen.value = { top: event.currentTarget.scrollTop, height: event.currentTarget.clientHeight })}
    >
      <div class="list-inner" style={{ height: `${props.count * ROW}px` }}>
        {shown}
      </div>
    </div>
  );
}

const follow = signal(true);

function Entries(): JSX.Element {
  void revision.value;
  const known = journal.value;
  const { count, at } = rows.value;
  return (
    <>
      <div class="filters">
        <input
          type="search"
          aria-label="find entries"
          placeholder="find: text, step:name, failed…"
          value={search.value}
          onInput={(event) => (search.value = event.currentTarget.value)}
        />
        <label class="check">
          <input type="checkbox" checked={follow.value} onChange={(event) => (follow.value = event.currentTarget.checked)} />
          follow
        </label>
      </div>
      <Windowed
        label="entries of the journal"
        count={count}
        follow={follow.value && picked.value === 0}
        row={(index) => {
          const entry = known.entries[at(index) - 1] as Entry;
          const told = telling(entry);
          const chosen = picked.value === entry.seq;
          return (
            <div class="row-at" role="listitem" key={entry.seq} style={{ top: `${index * ROW}px` }}>
              <button type="button" class={`row tone-${told.tone}${chosen ? " chosen" : ""}`} aria-pressed={chosen} onClick={() => (picked.value = chosen ? 0 : entry.seq)}>
                <span class="n">{entry.seq}</span>
                <span class="t">{seconds(entry.at - known.began)}</span>
                <span class="sign" aria-hidden="true">
                  {told.sign}
                </span>
                <span class="what">
                  {entry.step ? <b>{entry.step}</b> : null} {told.verb === "done" && told.about ? "" : told.verb} <i>{told.about}</i>
                </span>
              </button>
            </div>
          );
        }}
      />
      <Inspector />
    </>
  );
}

function Streamed(): JSX.Element {
  void revision.value;
  const known = journal.value;
  const many = upTo(known.streamed.map((one) => one.seq), pos.value);
  return (
    <>
      <Windowed
        label="events of the stream"
        count={many}
        follow={picked.value === 0}
        row={(index) => {
          const { seq, event } = known.streamed[index] as { seq: number; event: { type: string; value: { [key: string]: Json } } };
          const chosen = picked.value === seq;
          return (
            <div class="row-at" role="listitem" key={index} style={{ top: `${index * ROW}px` }}>
              <button type="button" class={`row${chosen ? " chosen" : ""}`} aria-pressed={chosen} onClick={() => (picked.value = chosen ? 0 : seq)}>
                <span class="n">{seq}</span>
                <span class="t">{seconds((known.entry(seq)?.at ?? 0) - known.began)}</span>
                <span class="what">
                  <b>{event.type}</b> {fieldsOf(event.value)}
                </span>
              </button>
            </div>
          );
        }}
      />
      <Inspector />
    </>
  );
}

function fieldsOf(value: { [key: string]: Json }): string {
  const entries = Object.entries(value);
  if (entries.length === 1) return brief(plain(entries[0]?.[1] ?? null), 200);
  return entries.map(([name, one]) => `${name}=${brief(plain(one), 60)}`).join(" ");
}

// ------------------------------------------------------------------------------------------------ one entry
function Inspector(): JSX.Element | null {
  void revision.value;
  const known = journal.value;
  const entry = known.entry(picked.value);
  if (entry === null) return head.value ? <p class="hint pad">Choose an entry to see what came of what.</p> : null;
  const told = telling(entry);
  const causes = entry.causes.map((number) => ({ number, origin: known.origin(number) }));
  return (
    <section class="inspector" aria-label={`entry ${entry.seq}`}>
      <div class="inspector-head">
        <strong>
          {entry.seq} {entry.step ?? ""} {told.verb}
        </strong>
        <button type="button" class="quiet" onClick={() => moveTo(entry.seq)}>
          go there
        </button>
        <button type="button" class="quiet" onClick={() => (forking.value = entry.seq)}>
          fork here…
        </button>
        <button type="button" class="quiet" aria-label="close the entry" onClick={() => (picked.value = 0)}>
          ✕
        </button>
      </div>
      <p class="hint">
        {seconds(entry.at - known.began)} after the start
        {entry.began === null ? "" : `, took ${seconds(entry.at - entry.began)}`}
        {entry.attempt > 1 ? `, attempt ${entry.attempt}` : ""}
      </p>
      {causes.length ? (
        <div class="links">
          <h3>Came of</h3>
          {causes.map(({ number, origin }) => (
            <Jump key={number} seq={origin?.seq ?? 0} text={origin === null ? `event ${number}` : `${origin.event?.type ?? "event"} of ${origin.step ?? "outside"}`} />
          ))}
        </div>
      ) : null}
      {entry.effects.length ? (
        <div class="links">
          <h3>Did</h3>
          {entry.effects.map((effect, k) => (
            <Did key={k} effect={effect} />
          ))}
        </div>
      ) : null}
      <details>
        <summary>JSON</summary>
        <pre>{JSON.stringify(entry, null, 2)}</pre>
      </details>
    </section>
  );
}

function Did({ effect }: { effect: Effect }): JSX.Element {
  const next = [...new Set((effect.to ?? []).flatMap((to) => journal.value.consumedBy(to.number)))];
  const value = effect.event ? fieldsOf(effect.event.value) : effect.value === undefined ? "" : brief(plain(effect.value), 200);
  return (
    <div class="did">
      <span>{effectTelling(effect)}</span> {value ? <code>{value}</code> : null}
      {next.map((seq) => (
        <Jump key={seq} seq={seq} text={`→ ${journal.value.entry(seq)?.step ?? ""} ${journal.value.entry(seq)?.kind ?? ""}`} />
      ))}
    </div>
  );
}

function Jump({ seq, text }: { seq: number; text: string }): JSX.Element {
  if (seq === 0) return <span class="jump">{text}</span>;
  return (
    <button type="button" class="jump" onClick={() => ((picked.value = seq), pos.value < seq ? moveTo(seq) : undefined, (tab.value = "journal"))}>
      <span class="n">{seq}</span> {text}
    </button>
  );
}

// ------------------------------------------------------------------------------------------------ the state
function State(): JSX.Element {
  void revision.value;
  const { state } = journal.value;
  const here = pos.value;
  if (state.size === 0) return <p class="hint pad">No step has written to the state.</p>;
  const changed = state.changedAt(here);
  const value = state.at(here);
  const before = structuredClone(changed > 0 ? state.at(changed - 1) : {});
  const changes = changed > 0 ? differences(before, value) : [];
  return (
    <div class="scroll">
      <h3>
        {changed === 0 ? "Before the first change" : changed === here ? "Changed by this entry" : "Last changed by"}{" "}
        {changed > 0 ? <Jump seq={changed} text={journal.value.entry(changed)?.step ?? ""} /> : null}
      </h3>
      <div class="changes" role="list" aria-label="changes of the state">
        {changes.slice(0, 200).map((one) => (
          <Change key={one.path} one={one} />
        ))}
      </div>
      <h3>State</h3>
      <pre>{JSON.stringify(value, null, 2)}</pre>
    </div>
  );
}

function Change({ one }: { one: Difference }): JSX.Element {
  return (
    <div class="change" role="listitem">
      <code class="path">{one.path || "(all of it)"}</code>
      {one.before === undefined ? null : (
        <del>
          <span class="sr">was </span>
          {brief(one.before, 300)}
        </del>
      )}
      {one.after === undefined ? null : (
        <ins>
          <span class="sr">is </span>
          {brief(one.after, 300)}
        </ins>
      )}
    </div>
  );
}

// ------------------------------------------------------------------------------------------------ errors and the result
function Errors(): JSX.Element {
  void revision.value;
  const known = journal.value;
  const failures = known.failures.slice(0, upTo(known.failures, pos.value));
  const last = run.value?.error;
  if (failures.length === 0) return <p class="hint pad">Nothing has failed{place.value === null ? "" : " by then"}.</p>;
  return (
    <div class="scroll">
      {place.value === null && last ? (
        <section class="failure final">
          <h3>
            {last.type}
            {last.step ? ` in ${last.step}` : ""}
            {last.attempts ? `, after ${last.attempts} ${last.attempts === 1 ? "attempt" : "attempts"}` : ""}
          </h3>
          <p>{last.message}</p>
          {last.traceback ? <pre>{last.traceback}</pre> : <p class="hint">The server shows tracebacks with debug on.</p>}
        </section>
      ) : null}
      {failures
        .slice(-200)
        .reverse()
        .map((seq) => {
          const entry = known.entry(seq) as Entry;
          const { title, message, trace } = failureOf(entry);
          return (
            <section class="failure" key={seq}>
              <h3>
                <Jump seq={seq} text={`${entry.step ?? "the run"}${entry.kind === "closed" ? "" : `, attempt ${entry.attempt}`}`} />
                <span class="hint"> at {seconds(entry.at - known.began)}</span>
              </h3>
              <p>
                <b>{title}</b> {message}
              </p>
              {trace ? (
                <details open>
                  <summary>traceback</summary>
                  <pre>{trace}</pre>
                </details>
              ) : null}
            </section>
          );
        })}
    </div>
  );
}

/** What can be read of a failure, wherever in the entry's value its error is. */
function failureOf(entry: Entry): { title: string; message: string; trace: string } {
  const found = { title: "", message: "", trace: "" };
  const look = (value: Json, depth: number): void => {
    if (value === null || typeof value !== "object" || depth > 6) return;
    if (!Array.isArray(value)) {
      if (!found.title && typeof value.type === "string" && typeof value.message === "string") {
        found.title = value.type;
        found.message = value.message;
      }
      if (!found.trace && typeof value.traceback === "string") found.trace = value.traceback;
    }
    for (const inner of Object.values(value)) look(inner, depth + 1);
  };
  look(entry.value, 0);
  if (!found.title) found.message = brief(plain(entry.value), 400);
  return found;
}

function Result(): JSX.Element {
  void revision.value;
  const known = run.value;
  const { closed } = moment.value;
  if (closed === null) return <p class="hint pad">The run {place.value === null ? "has" : "had"} not ended{place.value === null ? " yet" : " by then"}.</p>;
  const value = known?.event ? known.result : plain(closed.value.result ?? null);
  return (
    <div class="scroll">
      <h3>
        <span class={`word ${status.value}`}>{status.value.replace("_", " ")}</span> with {closed.type}
      </h3>
      {known?.error ? (
        <p class="bad-text">
          {known.error.type}: {known.error.message}
        </p>
      ) : typeof value === "string" ? (
        <p class="answer">{value}</p>
      ) : (
        <pre>{JSON.stringify(value ?? null, null, 2)}</pre>
      )}
      <details>
        <summary>the terminal event</summary>
        <pre>{JSON.stringify(closed, null, 2)}</pre>
      </details>
    </div>
  );
}
