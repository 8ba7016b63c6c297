// Where steps and events stand in the picture of a workflow.

import layout from "@dagrejs/dagre/lib/layout.js";
import { Graph as Picture } from "@dagrejs/graphlib";
import type { Graph, GraphStep } from "./types";

export interface StepBox {
  step: GraphStep;
  x: number;
  y: number;
}

export interface Pill {
  type: string;
  x: number;
  y: number;
  width: number;
  role: "start" | "stop" | "outside" | "inner";
}

export interface Way {
  key: string;
  path: string;
  dotted: boolean;
  from: string; // step, or ""
  to: string;
  type: string;
}

export interface Layout {
  width: number;
  height: number;
  steps: StepBox[];
  pills: Pill[];
  ways: Way[];
}

export const BOX = { width: 168, height: 72 };
export const PILL = 26;

const START = "<start>";
const STOP = "<stop>";
const OUTSIDE = "<outside>";

/** Lays a graph out in the direction that shows it larger in a space of some shape. */
export function layoutOf(graph: Graph, shape: number): Layout {
  const across = laid(graph, "LR");
  const down = laid(graph, "TB");
  const size = (one: Layout): number => Math.min(shape / one.width, 1 / one.height);
  return size(across) >= size(down) ? across : down;
}

function laid(graph: Graph, rankdir: "LR" | "TB"): Layout {
  const picture = new Picture();
  picture.setGraph({ rankdir, nodesep: rankdir === "LR" ? 22 : 28, ranksep: rankdir === "LR" ? 38 : 30, edgesep: 14, marginx: 14, marginy: 14 });
  picture.setDefaultEdgeLabel(() => ({}));
  const steps = new Map(graph.steps.map((step) => [step.name, step]));
  const catching = new Set(graph.edges.filter((edge) => edge.event === "StepFailedEvent").map((edge) => edge.target));
  for (const name of steps.keys()) picture.setNode(`s:${name}`, { ...BOX });
  const roles = new Map<string, Pill["role"]>();
  const ways = new Map<string, { from: string; to: string; type: string; dotted: boolean }>();
  for (const { source, event, target, listed } of graph.edges) {
    const role = source === START ? "start" : target === STOP ? "stop" : source === OUTSIDE || target === OUTSIDE ? "outside" : "inner";
    if ((roles.get(event) ?? "inner") === "inner") roles.set(event, role);
    const dotted = source === OUTSIDE || target === OUTSIDE || catching.has(target);
    if (steps.has(source)) ways.set(`${source}>${event}`, { from: source, to: "", type: event, dotted: dotted && (ways.get(`${source}>${event}`)?.dotted ?? true) });
    if (steps.has(target)) ways.set(`${event}>${target}`, { from: "", to: target, type: event, dotted });
    void listed;
  }
  for (const type of roles.keys()) picture.setNode(`e:${type}`, { width: pillWidth(type), height: PILL });
  for (const { from, to, type } of ways.values())
    picture.setEdge(from ? `s:${from}` : `e:${type}`, to ? `s:${to}` : `e:${type}`, { weight: 2 });
  layout(picture);
  const size = picture.graph() as { width?: number; height?: number };
  const at = (id: string): { x: number; y: number } => picture.node(id) as { x: number; y: number };
  return {
    width: size.width ?? 1,
    height: size.height ?? 1,
    steps: [...steps.values()].map((step) => ({ step, ...point(at(`s:${step.name}`)) })),
    pills: [...roles].map(([type, role]) => ({ type, role, width: pillWidth(type), ...point(at(`e:${type}`)) })),
    ways: [...ways].map(([key, way]) => {
      const { points } = picture.edge(way.from ? `s:${way.from}` : `e:${way.type}`, way.to ? `s:${way.to}` : `e:${way.type}`) as {
        points: { x: number; y: number }[];
      };
      return { key, ...way, path: smooth(points) };
    }),
  };
}

function point({ x, y }: { x: number; y: number }): { x: number; y: number } {
  return { x, y };
}

export function pillWidth(type: string): number {
  return Math.max(56, [...type].reduce((sum, sign) => sum + (sign > "\u2e7f" ? 12 : 6.6), 0) + 46);
}

/** A line through some points, with its corners rounded. */
function smooth(points: readonly { x: number; y: number }[]): string {
  const [first, ...others] = points;
  if (first === undefined) return "";
  const say = (x: number, y: number): string => `${x.toFixed(1)} ${y.toFixed(1)}`;
  let path = `M${say(first.x, first.y)}`;
  others.forEach((here, k) => {
    const next = others[k + 1];
    if (next === undefined) path += `L${say(here.x, here.y)}`;
    else path += `${k === 0 ? "L" : "Q"}${k === 0 ? "" : `${say(here.x, here.y)} `}${say((here.x + next.x) / 2, (here.y + next.y) / 2)}`;
  });
  return path;
}
