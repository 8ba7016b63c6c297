// What the server says: the shapes of its JSON.

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type Fields = { [key: string]: Json };

export interface Schema {
  $ref?: string;
  $defs?: Record<string, Schema>;
  title?: string;
  description?: string;
  type?: string;
  format?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: boolean | Schema;
  items?: Schema;
  prefixItems?: Schema[];
  anyOf?: Schema[];
  oneOf?: Schema[];
  enum?: Json[];
  const?: Json;
  default?: Json;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
  multipleOf?: number;
  minLength?: number;
  maxLength?: number;
  minItems?: number;
  maxItems?: number;
  pattern?: string;
}

export interface Ev {
  type: string;
  value: Fields;
}

export interface To {
  step: string | null;
  number: number;
}

export interface Effect {
  kind: string;
  index?: number;
  event?: Ev | null;
  to?: To[];
  causes?: number[];
  path?: string | null;
  name?: string | null;
  value?: Json;
  wait?: string | null;
  seconds?: number | null;
}

export interface Entry {
  seq: number;
  at: number;
  kind: string;
  step: string | null;
  invocation: [number, number] | null;
  attempt: number;
  began: number | null;
  causes: number[];
  effects: Effect[];
  value: Json;
}

export interface Live {
  kind: string;
  step: string | null;
  type: string | null;
  at: number;
}

export interface Wait {
  id: string;
  step: string;
  type: string;
  schema: Schema;
  prompt: Ev | null;
  opened_at: number;
  deadline: number | null;
}

export interface RunError {
  type: string;
  message: string;
  step: string | null;
  attempts: number | null;
  traceback?: string | null;
}

export interface Run {
  run_id: string;
  workflow: string;
  version: string;
  status: string;
  created_at: number;
  closed_at: number | null;
  head: number;
  parent: string | null;
  forked_from: Json;
  start: Ev | null;
  result?: Json;
  event?: Ev | null;
  error?: RunError | null;
  waits?: Wait[];
}

export interface GraphStep {
  name: string;
  doc?: string | null;
  num_workers?: number | null;
  accepts?: string[];
  emits?: string[];
  joins?: Json;
  waits_for?: string[];
}

export interface GraphEdge {
  source: string;
  event: string;
  target: string;
  listed?: boolean;
}

export interface Graph {
  steps: GraphStep[];
  edges: GraphEdge[];
}

export interface WorkflowInfo {
  name: string;
  version: string;
  doc: string | null;
  start: string;
  waits_for: string[];
}

export interface WorkflowDetail {
  name: string;
  version: string;
  doc: string | null;
  start: Schema;
  stop: Schema;
  events: Record<string, Schema>;
  graph: Graph;
}
