// The page.

import { render, type JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { token } from "./api";
import { Graph } from "./graph";
import { Right } from "./journal";
import { Fork, Player, Waits } from "./player";
import { Left } from "./runs";
import { begin, head, line, locked, moveTo, notice, type Pane, pane, play, pos, reachable, runId, theme, workflowName } from "./store";
import { Timeline } from "./timeline";

const PANES: readonly [Pane, string][] = [
  ["runs", "Runs"],
  ["run", "Graph"],
  ["journal", "Journal"],
];

function App(): JSX.Element {
  return (
    <>
      <Top />
      <main data-pane={pane.value}>
        <Left />
        <Middle />
        <Right />
      </main>
      <Notice />
      <Fork />
      <Locked />
    </>
  );
}

function Top(): JSX.Element {
  const next = theme.value === "" ? (matchMedia("(prefers-color-scheme: dark)").matches ? "light" : "dark") : theme.value === "dark" ? "light" : "dark";
  return (
    <div class="top">
      <a class="brand" href="#/">
        <span class="mark" aria-hidden="true" />
        actorflow
      </a>
      <nav class="panes" aria-label="parts of the page">
        {PANES.map(([name, word]) => (
          <button key={name} type="button" aria-pressed={pane.value === name} onClick={() => (pane.value = name)}>
            {word}
          </button>
        ))}
      </nav>
      {reachable.value ? null : (
        <span class="chip lost" role="status">
          the server does not answer, trying again…
        </span>
      )}
      <span class="spring" />
      <button type="button" class="quiet" aria-label={`switch to ${next} colours`} onClick={() => (theme.value = next)}>
        {next === "dark" ? "☾" : "☀"}
      </button>
    </div>
  );
}

function Middle(): JSX.Element {
  return (
    <section class="pane pane-run" aria-label="run">
      {runId.value ? line.value === "missing" ? null : <Player /> : <Title />}
      {line.value === "missing" ? (
        <p class="hint pad" role="alert">
          There is no run {runId.value} on this server. It may have been deleted.
        </p>
      ) : null}
      <div class="stage">
        <Graph />
        <Waits />
      </div>
      {runId.value && line.value !== "missing" ? <Timeline /> : null}
    </section>
  );
}

function Title(): JSX.Element {
  return (
    <header class="player">
      <div class="player-line">
        <h1 class="run-title">{workflowName.value}</h1>
        <span class="hint">Start a run, or choose one.</span>
      </div>
    </header>
  );
}

function Notice(): JSX.Element {
  const now = notice.value;
  useEffect(() => {
    if (now === null || now.bad) return;
    const timer = setTimeout(() => notice.value === now && (notice.value = null), 5000);
    return () => clearTimeout(timer);
  }, [now]);
  return (
    <div class="notices" role="status" aria-live="polite">
      {now ? (
        <div class={now.bad ? "notice bad" : "notice"}>
          <span>{now.text}</span>
          <button type="button" class="quiet" aria-label="close the message" onClick={() => (notice.value = null)}>
            ✕
          </button>
        </div>
      ) : null}
    </div>
  );
}

function Locked(): JSX.Element | null {
  const dialog = useRef<HTMLDialogElement>(null);
  const [text, setText] = useState("");
  useEffect(() => {
    if (locked.value) dialog.current?.showModal();
  }, [locked.value]);
  if (!locked.value) return null;
  return (
    <dialog ref={dialog} aria-labelledby="locked-title" onClose={() => (locked.value = false)}>
      <h2 id="locked-title">The server asks for its token</h2>
      <form
        class="form"
        onSubmit={(event) => {
          event.preventDefault();
          token.set(text.trim());
          location.reload();
        }}
      >
        <div class="field">
          <label for="token">token</label>
          <input id="token" type="password" autocomplete="off" value={text} onInput={(event) => setText(event.currentTarget.value)} />
        </div>
        <div class="form-foot">
          <button type="submit" class="primary">
            Go on
          </button>
        </div>
      </form>
    </dialog>
  );
}

/** Keys that move in time, wherever they mean nothing else. */
function keys(event: KeyboardEvent): void {
  const target = event.target as Element;
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || runId.value === "") return;
  if (target.closest("input, textarea, select, dialog, [role=tablist]")) return;
  const far = event.shiftKey ? 10 : 1;
  if (event.key === "ArrowLeft") moveTo(pos.value - far);
  else if (event.key === "ArrowRight") moveTo(pos.value + far);
  else if (event.key === "Home" && !target.closest(".list")) moveTo(0);
  else if (event.key === "End" && !target.closest(".list")) moveTo(head.value);
  else if (event.key === " " && !target.closest("button, a, summary, [role=button], .list")) play();
  else return;
  event.preventDefault();
}

document.addEventListener("keydown", keys);
render(<App />, document.getElementById("page") as HTMLElement);
void begin();
