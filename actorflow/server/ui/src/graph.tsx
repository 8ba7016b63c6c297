// In the middle: the workflow as a picture, with what goes on in it at the moment shown.

import { computed, signal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { BOX, PILL, layoutOf } from "./layout";
import type { StepMoment } from "./model";
import { detail, journal, moment, pos, revision, search, tab, waits } from "./store";
import { count, seconds } from "./words";

const space = signal({ width: 800, height: 400 });
const inset = computed(() => (waits.value.length && space.value.width > 640 ? 306 : 0)); // the forms of waits stand there
const shape = computed(() => Math.round(((space.value.width - inset.value) / Math.max(1, space.value.height)) * 4) / 4);
const layout = computed(() => (detail.value ? layoutOf(detail.value.graph, shape.value) : null));
const view = signal({ x: 0, y: 0, scale: 0 }); // scale 0: the whole of it, as large as it goes
const CALM: StepMoment = { queued: 0, running: 0, waiting: 0, done: 0, failed: 0, dropped: 0, p50: null };

const fitted = computed(() => {
  const picture = layout.value;
  if (picture === null || view.value.scale > 0) return view.value;
  const { height } = space.value;
  const beside = inset.value;
  const width = space.value.width - beside;
  const scale = Math.min(width / picture.width, height / picture.height, 1.35);
  return { scale, x: beside + (width - picture.width * scale) / 2, y: (height - picture.height * scale) / 2 };
});

function zoom(by: number, at?: { x: number; y: number }): void {
  const { x, y, scale } = fitted.value;
  const center = at ?? { x: space.value.width / 2, y: space.value.height / 2 };
  const next = Math.min(4, Math.max(0.1, scale * by));
  const ratio = next / scale;
  view.value = { scale: next, x: center.x - (center.x - x) * ratio, y: center.y - (center.y - y) * ratio };
}

function pan(x: number, y: number): void {
  const now = fitted.value;
  view.value = { ...now, x: now.x + x, y: now.y + y };
}

export function Graph(): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const drag = useRef<{ x: number; y: number; id: number } | null>(null);
  useEffect(() => {
    const element = box.current;
    if (element === null) return;
    const watch = new ResizeObserver(([entry]) => {
      if (entry && entry.contentRect.width > 0) space.value = { width: entry.contentRect.width, height: entry.contentRect.height };
    });
    watch.observe(element);
    const wheel = (event: WheelEvent): void => {
      event.preventDefault();
      const { left, top } = element.getBoundingClientRect();
      if (event.ctrlKey || event.metaKey || Math.abs(event.deltaY) >= Math.abs(event.deltaX))
        zoom(Math.exp(-event.deltaY / 400), { x: event.clientX - left, y: event.clientY - top });
      else pan(-event.deltaX, 0);
    };
    element.addEventListener("wheel", wheel, { passive: false });
    return () => (watch.disconnect(), element.removeEventListener("wheel", wheel));
  }, []);
  const { x, y, scale } = fitted.value;
  const keys = (event: KeyboardEvent): void => {
    const moves: Record<string, () => void> = {
      "+": () => zoom(1.2),
      "=": () => zoom(1.2),
      "-": () => zoom(1 / 1.2),
      "0": () => (view.value = { x: 0, y: 0, scale: 0 }),
    };
    const move = moves[event.key];
    if (move === undefined || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    move();
  };
  return (
    <div
      class="graph"
      ref={box}
      role="group"
      aria-label="workflow graph"
      onKeyDown={keys}
      onPointerDown={(event) => {
        if (event.button !== 0 || (event.target as Element).closest("button, .step")) return;
        drag.current = { x: event.clientX, y: event.clientY, id: event.pointerId };
        event.currentTarget.setPointerCapture(event.pointerId);
      }}
      onPointerMove={(event) => {
        const from = drag.current;
        if (from?.id !== event.pointerId) return;
        pan(event.clientX - from.x, event.clientY - from.y);
        drag.current = { ...from, x: event.clientX, y: event.clientY };
      }}
      onPointerUp={() => (drag.current = null)}
      onPointerCancel={() => (drag.current = null)}
      onDblClick={() => (view.value = { x: 0, y: 0, scale: 0 })}
    >
      <svg width="100%" height="100%" aria-hidden={layout.value === null}>
        <defs>
          <marker id="tip" viewBox="0 0 8 8" refX="7.2" refY="4" markerWidth="6.5" markerHeight="6.5" orient="auto">
            <path d="M0 .8L7.5 4L0 7.2z" />
          </marker>
        </defs>
        <g transform={`translate(${x.toFixed(2)} ${y.toFixed(2)}) scale(${scale.toFixed(4)})`}>
          <Picture />
        </g>
      </svg>
      <div class="zoom" role="group" aria-label="zoom">
        <button type="button" aria-label="zoom in" onClick={() => zoom(1.25)}>
          +
        </button>
        <button type="button" aria-label="zoom out" onClick={() => zoom(0.8)}>
          −
        </button>
        <button type="button" aria-label="show all of the graph" onClick={() => (view.value = { x: 0, y: 0, scale: 0 })}>
          ⤢
        </button>
      </div>
    </div>
  );
}

function Picture(): JSX.Element | null {
  const picture = layout.value;
  if (picture === null) return null;
  void revision.value;
  const now = moment.value;
  const here = pos.value;
  const entry = journal.value.entry(here);
  const fresh = new Set((entry?.effects ?? []).flatMap((one) => (one.event ? [one.event.type] : [])));
  return (
    <>
      {picture.ways.map((way) => (
        <path
          key={way.key}
          d={way.path}
          class={`way${way.dotted ? " dotted" : ""}${journal.value.sent(way.type, here) ? " used" : ""}${
            fresh.has(way.type) && (way.from === "" || way.from === entry?.step) ? " fresh" : ""
          }`}
          marker-end="url(#tip)"
        />
      ))}
      {picture.pills.map((pill) => {
        const sent = journal.value.sent(pill.type, here);
        const end = pill.role === "stop" && now.closed?.type === pill.type;
        const many = Math.max(sent, end ? 1 : 0);
        return (
          <g key={pill.type} class={`pill ${pill.role}${many ? " used" : ""}${fresh.has(pill.type) ? " fresh" : ""}`}>
            <rect x={pill.x - pill.width / 2} y={pill.y - PILL / 2} width={pill.width} height={PILL} rx={PILL / 2} />
            <text x={pill.x} y={pill.y + 4} text-anchor="middle">
              {pill.type}
              {many ? <tspan class="many"> ×{count(many)}</tspan> : null}
            </text>
          </g>
        );
      })}
      {picture.steps.map(({ step, x, y }) => {
        const one = within(now.steps.get(step.name) ?? CALM, step.num_workers ?? 1);
        const left = x - BOX.width / 2;
        const top = y - BOX.height / 2;
        const right = left + BOX.width - 10;
        const failing = entry?.step === step.name && (entry.kind === "failed" || entry.kind === "recovered");
        const mood = failing ? "bad" : one.waiting ? "wait" : one.running ? "busy" : one.failed && !one.done ? "bad" : one.done ? "done" : "";
        const workers = step.num_workers ?? 1;
        const words = `step ${step.name}: ${one.running - one.waiting} running of ${workers}, ${one.queued} queued, ${one.waiting} waiting, ${one.done} done, ${one.failed} failed`;
        return (
          <g
            key={step.name}
            class={`step ${mood}`}
            tabIndex={0}
            role="button"
            aria-label={`${words}; show its entries`}
            onClick={() => only(step.name)}
            onKeyDown={(event) => {
              if (event.key !== "Enter" && event.key !== " ") return;
              event.preventDefault();
              only(step.name);
            }}
          >
            <title>{step.doc ?? words}</title>
            <rect class="box" x={left} y={top} width={BOX.width} height={BOX.height} rx={9} />
            <text class="name" x={left + 11} y={top + 20}>
              {short(step.name)}
            </text>
            <text class={one.running > one.waiting ? "small busy-text" : "small"} x={right} y={top + 20} text-anchor="end">
              {one.waiting ? "◔ " : ""}
              {one.running - one.waiting}/{workers}
            </text>
            <text class="small" x={left + 11} y={top + 40}>
              queue <tspan class={one.queued ? "value" : ""}>{count(one.queued)}</tspan>
            </text>
            <text class="small" x={right} y={top + 40} text-anchor="end">
              {one.p50 === null ? "" : `p50 ${seconds(one.p50)}`}
            </text>
            <text class="small" x={left + 11} y={top + 57}>
              done <tspan class={one.done ? "value" : ""}>{count(one.done)}</tspan>
            </text>
            <text class={one.failed || one.dropped ? "small bad-text" : "small wait-text"} x={right} y={top + 57} text-anchor="end">
              {one.failed ? `failed ${count(one.failed)}` : one.dropped ? `dropped ${count(one.dropped)}` : one.waiting ? `waits ${count(one.waiting)}` : ""}
            </text>
            <rect class="track" x={left + 10} y={top + BOX.height - 7} width={BOX.width - 20} height={2.5} rx={1.25} />
            <rect class="load" x={left + 10} y={top + BOX.height - 7} height={2.5} rx={1.25} width={Math.min(1, (one.running - one.waiting) / workers) * (BOX.width - 20)} />
          </g>
        );
      })}
    </>
  );
}

/** A body may begin before the end of the one whose place it takes is on record: it is shown as queued until then. */
function within(one: StepMoment, workers: number): StepMoment {
  const over = Math.max(0, one.running - one.waiting - workers);
  return { ...one, running: one.running - over, queued: one.queued + over };
}

function short(name: string): string {
  return name.length > 17 ? `${name.slice(0, 16)}…` : name;
}

function only(step: string): void {
  const wanted = `step:${step}`;
  search.value = search.value === wanted ? "" : wanted;
  tab.value = "journal";
}
