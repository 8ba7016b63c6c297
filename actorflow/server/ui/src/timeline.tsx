// Under the graph: a lane for each step, from the first entry to the last.
//
// All spans are drawn once, to a canvas of its own, whenever the journal grows; a moment is that picture up to now, a
// pale one of what is to come, and what is under way.

import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { effect } from "@preact/signals";
import { upTo, type Span } from "./model";
import { clock, detail, journal, moment, moveTo, place, pos, revision, theme } from "./store";
import { seconds } from "./words";

const LABEL = 108;
const LANE = 26; // the least height
const AXIS = 18;
const ROWS = 6; // executions beside each other in a lane
const EDGE = 12;

interface Colours {
  fg: string;
  dim: string;
  line: string;
  busy: string;
  done: string;
  bad: string;
  queue: string;
  alt: string;
}

function colours(): Colours {
  const style = getComputedStyle(document.documentElement);
  const read = (name: string): string => style.getPropertyValue(`--${name}`).trim();
  return { fg: read("fg"), dim: read("dim"), line: read("line"), busy: read("busy"), done: read("done"), bad: read("bad"), queue: read("queue"), alt: read("alt") };
}

/** Gives every span a row of its lane in which it covers no other, while there are rows. */
function rowsOf(spans: readonly Span[]): { span: Span; row: number; rows: number }[] {
  const sorted = [...spans].sort((a, b) => (a.began ?? a.queuedAt) - (b.began ?? b.queuedAt));
  const lanes = new Map<string, number[]>();
  const placed = sorted.map((span) => {
    let ends = lanes.get(span.step);
    if (ends === undefined) lanes.set(span.step, (ends = []));
    const from = span.began ?? span.queuedAt;
    let row = ends.findIndex((end) => end <= from + 1e-9);
    if (row < 0) row = ends.length < ROWS ? ends.length : ends.indexOf(Math.min(...ends));
    ends[row] = Math.max(ends[row] ?? 0, span.ended ?? (span.began === null ? span.queuedAt : Infinity));
    return { span, row, rows: 0 };
  });
  for (const one of placed) one.rows = lanes.get(one.span.step)?.length ?? 1;
  return placed;
}

class Painter {
  #whole = document.createElement("canvas");
  #drawn = "";
  #drawnAt = 0;
  #placed: ReturnType<typeof rowsOf> = [];
  #open: ReturnType<typeof rowsOf> = [];

  constructor(private canvas: HTMLCanvasElement) {}

  paint(again: () => void): void {
    const graph = detail.value?.graph;
    this.#place();
    const known = journal.value;
    const lanes = graph?.steps.map((step) => step.name) ?? [];
    const { canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const height = AXIS + this.#heights(lanes).reduce((sum, one) => sum + one, 0);
    canvas.style.height = `${height}px`;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const live = place.value === null && known.head > 0 && known.closedAt === 0;
    const began = known.began;
    const end = Math.max(known.last, live ? clock.value : known.last, began + 1e-3);
    const scale = (width - LABEL - EDGE) / (end - began);
    const look = colours();
    const what = [revision.value, width, height, ratio, lanes.join(), look.fg, live ? clock.value : 0].join("|");
    const now = performance.now();
    const large = known.spans.length > 5000;
    if (what !== this.#drawn && (!large || now - this.#drawnAt > 400 || this.#drawn === "")) {
      this.#drawWhole(lanes, began, scale, look, ratio, end);
      this.#drawn = what;
      this.#drawnAt = now;
    } else if (what !== this.#drawn) setTimeout(again, 420);
    const context = canvas.getContext("2d");
    if (context === null) return;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    const at = live ? end : moment.value.at;
    const cut = Math.round((LABEL + (at - began) * scale) * ratio);
    context.globalAlpha = 0.22;
    context.drawImage(this.#whole, 0, 0);
    context.globalAlpha = 1;
    const past = Math.max(1, Math.min(cut, canvas.width));
    context.clearRect(0, 0, past, canvas.height);
    context.drawImage(this.#whole, 0, 0, past, canvas.height, 0, 0, past, canvas.height);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    // What was under way: blue up to now, whatever became of it.
    for (const { span, row, rows } of this.#open.length || !live ? this.#underWay(at) : []) {
      const lane = lanes.indexOf(span.step);
      if (lane < 0 || span.began === null) continue;
      const { top, tall } = this.#strip(lanes, lane, row, rows);
      const from = LABEL + (span.began - began) * scale;
      context.fillStyle = look.busy;
      context.fillRect(from, top, Math.max(1.5, LABEL + (at - began) * scale - from), Math.max(1.5, tall - 1));
    }
    context.fillStyle = look.fg;
    context.fillRect(LABEL + (at - began) * scale - 0.75, 0, 1.5, height);
  }

  #begins: number[] = [];
  #placedFor = -1;

  /** Gives the spans their rows, again only when there are more. */
  #place(): void {
    const { spans } = journal.value;
    const large = spans.length > 5000;
    if (this.#placedFor === revision.value || (large && performance.now() - this.#drawnAt < 400)) return;
    this.#placedFor = revision.value;
    this.#placed = rowsOf(spans);
    this.#begins = this.#placed.map(({ span }) => span.began ?? span.queuedAt);
    this.#open = this.#placed.filter(({ span }) => span.ended === null);
    this.#rows = new Map(this.#placed.map(({ span, rows }) => [span.step, rows]));
  }

  #rows = new Map<string, number>();

  #heights(lanes: readonly string[]): number[] {
    return lanes.map((name) => Math.max(LANE, 6 + 7 * (this.#rows.get(name) ?? 1)));
  }

  #strip(lanes: readonly string[], lane: number, row: number, rows: number): { top: number; tall: number } {
    const heights = this.#heights(lanes);
    const above = heights.slice(0, lane).reduce((sum, one) => sum + one, AXIS);
    const tall = ((heights[lane] ?? LANE) - 6) / rows;
    return { top: above + 3 + row * tall, tall };
  }

  #underWay(at: number): ReturnType<typeof rowsOf> {
    const until = upTo(this.#begins, at);
    const found: ReturnType<typeof rowsOf> = [];
    // Executions that began long ago and go on are few: those of `open`, and those that a look back of some thousands finds.
    for (let k = until - 1; k >= Math.max(0, until - 3000); k -= 1) {
      const one = this.#placed[k];
      if (one !== undefined && one.span.began !== null && one.span.began <= at && (one.span.ended ?? Infinity) > at) found.push(one);
    }
    return found;
  }

  #drawWhole(lanes: readonly string[], began: number, scale: number, look: Colours, ratio: number, end: number): void {
    const whole = this.#whole;
    const { canvas } = this;
    whole.width = canvas.width;
    whole.height = canvas.height;
    const context = whole.getContext("2d");
    if (context === null) return;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const width = canvas.width / ratio;
    const font = getComputedStyle(document.body).fontFamily;
    const place_ = new Map(lanes.map((name, k) => [name, k]));
    const heights = this.#heights(lanes);
    const tops = heights.map((_, k) => heights.slice(0, k).reduce((sum, one) => sum + one, AXIS));
    context.fillStyle = look.alt;
    tops.forEach((top, k) => k % 2 === 0 && context.fillRect(0, top, width, heights[k] ?? LANE));
    // The axis: about eight round numbers of seconds.
    const step = rounded((end - began) / Math.max(2, Math.min(8, (width - LABEL) / 90)));
    context.font = `10.5px ${font}`;
    for (let tick = 0; tick <= end - began + step * 0.01; tick += step) {
      const x = LABEL + tick * scale;
      context.fillStyle = look.line;
      context.fillRect(x, AXIS - 4, 1, canvas.height / ratio);
      context.fillStyle = look.dim;
      if (x < width - 30) context.fillText(tick === 0 ? "0" : seconds(tick), x + 3, 11);
    }
    const covered = new Map<number, number>(); // by lane and row, up to which pixel it is drawn
    const draw = (waiting: boolean): void => {
      covered.clear();
      for (const { span, row, rows } of this.#placed) {
        const lane = place_.get(span.step);
        if (lane === undefined) continue;
        const tall = ((heights[lane] ?? LANE) - 6) / rows;
        const y = (tops[lane] ?? 0) + 3 + row * tall;
        const began_ = LABEL + ((span.began ?? span.ended ?? end) - began) * scale;
        const from = waiting ? LABEL + (span.queuedAt - began) * scale : began_;
        const to = waiting ? began_ : Math.max(from + 1.5, LABEL + ((span.ended ?? end) - began) * scale);
        const bad = span.outcome === "failed" || span.attempt > 1;
        const key = lane * ROWS + row;
        if (to - from < 1 || (to <= (covered.get(key) ?? 0) && !bad) || (!waiting && span.began === null && span.ended === null)) continue;
        covered.set(key, Math.floor(to));
        context.globalAlpha = waiting ? 0.3 : bad && span.outcome === "done" ? 0.6 : 1;
        if (waiting) context.fillStyle = span.attempt > 1 ? look.bad : look.queue;
        else context.fillStyle = bad ? look.bad : span.outcome === "open" ? look.busy : span.outcome === "cut" ? look.dim : look.done;
        context.fillRect(from, waiting ? y + tall * 0.3 : y, to - from, Math.max(1.5, waiting ? tall * 0.4 : tall - 1));
      }
      context.globalAlpha = 1;
    };
    draw(true);
    draw(false);
    context.font = `11.5px ${font}`;
    lanes.forEach((name, k) => {
      context.fillStyle = look.dim;
      context.fillText(name.length > 15 ? `${name.slice(0, 14)}…` : name, 10, (tops[k] ?? 0) + (heights[k] ?? LANE) / 2 + 4);
    });
  }
}

function rounded(value: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-6)));
  const lead = value / power;
  return power * (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10);
}

export function Timeline(): JSX.Element {
  const ref = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const canvas = ref.current;
    if (canvas === null) return;
    const painter = new Painter(canvas);
    let frame = 0;
    const soon = (): void => {
      if (!frame) frame = requestAnimationFrame(() => ((frame = 0), painter.paint(soon)));
    };
    const stop = effect(() => {
      void [pos.value, revision.value, theme.value, detail.value, place.value];
      if (place.value === null && journal.value.closedAt === 0) void clock.value;
      soon();
    });
    const watch = new ResizeObserver(soon);
    watch.observe(canvas);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", soon);
    return () => (stop(), watch.disconnect(), dark.removeEventListener("change", soon), cancelAnimationFrame(frame));
  }, []);
  const go = (event: PointerEvent): void => {
    const canvas = ref.current;
    if (canvas === null || journal.value.head === 0) return;
    const { left, width } = canvas.getBoundingClientRect();
    const part = (event.clientX - left - LABEL) / (width - LABEL - EDGE);
    const { began, last } = journal.value;
    moveTo(part >= 0.999 ? journal.value.head : Math.max(1, journal.value.posAt(began + Math.max(0, part) * (last - began))));
  };
  return (
    <div class="timeline">
      <canvas
        ref={ref}
        role="img"
        aria-label={`timeline: ${journal.value.spans.length} executions in ${seconds(Math.max(0, journal.value.last - journal.value.began))}`}
        onPointerDown={(event) => {
          event.currentTarget.setPointerCapture(event.pointerId);
          go(event);
        }}
        onPointerMove={(event) => {
          if (event.buttons & 1) go(event);
        }}
      />
    </div>
  );
}
