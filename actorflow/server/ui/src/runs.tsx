// On the left: the form that starts a run, and the runs there are.

import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { api } from "./api";
import { Form } from "./form";
import {
  addressOf, choose, clock, complain, details, everywhere, formDetail, listRuns, older, olderRuns, open, prefix, run, runId, runs, say, statuses, workflowName, workflows,
} from "./store";
import type { Fields, Run } from "./types";
import { brief, seconds, STATUS } from "./words";

/** What the form begins with after *run again*, with a number that makes it a form of its own. */
export const again = signal<{ fields: Fields; turn: number; workflow: string } | null>(null);

export function runAgain(): void {
  const start = run.value?.start;
  if (!start) return;
  again.value = { fields: start.value, turn: (again.value?.turn ?? 0) + 1, workflow: run.value?.workflow ?? "" };
  requestAnimationFrame(() => document.querySelector<HTMLElement>("#start textarea, #start input, #start select, #start button")?.focus());
}

export function Left(): JSX.Element {
  return (
    <aside class="pane pane-runs" aria-label="runs">
      <Starter />
      <RunList />
    </aside>
  );
}

function Starter(): JSX.Element {
  const known = workflows.value ?? [];
  const detail = formDetail.value;
  const fields = again.value?.workflow === workflowName.value ? again.value : null;
  return (
    <section class="starter" aria-labelledby="start-title">
      <h2 id="start-title">Start a run</h2>
      {known.length > 1 ? (
        <div class="field">
          <label for="workflow">workflow</label>
          <select id="workflow" value={workflowName.value} onChange={(event) => choose(event.currentTarget.value)}>
            {known.map((one) => (
              <option key={one.name} value={one.name}>
                {one.name}
              </option>
            ))}
          </select>
        </div>
      ) : null}
      {known.length === 0 && workflows.value !== null ? <p class="hint">This server has no workflows.</p> : null}
      {detail?.doc ? <p class="hint">{detail.doc.split("\n\n")[0]}</p> : null}
      {detail ? (
        <Form
          key={`${detail.name}:${fields?.turn ?? 0}`}
          id="start"
          schema={detail.start}
          initial={fields?.fields}
          verb="Run"
          root="start"
          submit={async (value) => {
            const made = await api.start(detail.name, value);
            open(made);
            void listRuns();
          }}
        />
      ) : null}
    </section>
  );
}

function RunList(): JSX.Element {
  return (
    <section class="runs" aria-labelledby="runs-title">
      <h2 id="runs-title">Runs</h2>
      <div class="filters">
        <input
          type="search"
          aria-label="find runs whose id begins with"
          placeholder="id begins with…"
          value={prefix.value}
          onInput={(event) => (prefix.value = event.currentTarget.value)}
        />
        <select aria-label="status of the runs" value={statuses.value} onChange={(event) => (statuses.value = event.currentTarget.value)}>
          <option value="">any status</option>
          {Object.entries(STATUS).map(([name, word]) => (
            <option key={name} value={name}>
              {word}
            </option>
          ))}
        </select>
      </div>
      {details.value.size > 0 && (workflows.value?.length ?? 0) > 1 ? (
        <label class="check">
          <input type="checkbox" checked={everywhere.value} onChange={(event) => (everywhere.value = event.currentTarget.checked)} />
          of all workflows
        </label>
      ) : null}
      <ul class="run-list">
        {runs.value.map((one) => (
          <li key={one.run_id}>
            <Item one={one} />
          </li>
        ))}
      </ul>
      {runs.value.length === 0 ? <p class="hint">No runs{statuses.value || prefix.value ? " like that" : " yet"}.</p> : null}
      {older.value ? (
        <button type="button" class="quiet" onClick={() => void olderRuns().catch(complain)}>
          older runs
        </button>
      ) : null}
    </section>
  );
}

function Item({ one }: { one: Run }): JSX.Element {
  const took = (one.closed_at ?? clock.value) - one.created_at;
  const chosen = one.run_id === runId.value;
  const about = one.start ? Object.values(one.start.value).map((value) => brief(value, 40)).join(" · ") : "";
  return (
    <a
      class={chosen ? "run chosen" : "run"}
      href={addressOf(one)}
      aria-current={chosen ? "page" : undefined}
      onClick={(event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey) return;
        event.preventDefault();
        open(one);
      }}
    >
      <span class={`dot ${one.status}`} aria-hidden="true" />
      <span class="run-id">{one.run_id}</span>
      <span class="run-took">{seconds(Math.max(0, took))}</span>
      <span class="run-about">
        <span class={`word ${one.status}`}>{STATUS[one.status] ?? one.status}</span>
        {everywhere.value ? ` ${one.workflow}` : ""} {about}
      </span>
    </a>
  );
}

export async function copy(text: string, what: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    say(`${what} is in the clipboard.`);
  } catch {
    say(`The browser does not let the page write to the clipboard; here is the text:\n${text}`);
  }
}
