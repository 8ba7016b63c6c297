// A form, made from a JSON Schema: which controls there are, what they begin with, and what is wrong with their values.
//
// The value of a form is the JSON that it makes. `undefined` stands for a field that is left out.

import type { Json, Schema } from "./types";

export type Value = Json | undefined;

export interface Named {
  name: string;
  required: boolean;
  control: Control;
}

interface Common {
  description: string;
  initial: Value; // its default
}

export type Control = Common &
  (
    | { kind: "text"; long: boolean; pattern?: string; minLength?: number; maxLength?: number }
    | { kind: "number"; whole: boolean; minimum?: number; maximum?: number; over?: number; under?: number; step?: number }
    | { kind: "bool" }
    | { kind: "choice"; options: Json[] }
    | { kind: "moment"; input: "datetime-local" | "date" | "time" }
    | { kind: "none" }
    | { kind: "list"; item: () => Control; minItems?: number; maxItems?: number }
    | { kind: "places"; places: Control[] }
    | { kind: "object"; fields: Named[] }
    | { kind: "map"; item: () => Control }
    | { kind: "union"; options: { label: string; control: () => Control }[] }
    | { kind: "json" }
  );

const DEPTH = 12;

/** The controls for a schema. */
export function controlOf(schema: Schema, root: Schema = schema, depth = 0): Control {
  const followed = follow(schema, root);
  const common: Common = { description: followed.description ?? "", initial: followed.default };
  if (depth > DEPTH) return { ...common, kind: "json" };
  const inner = (one: Schema): Control => controlOf(one, root, depth + 1);
  if (followed.enum) return { ...common, kind: "choice", options: followed.enum };
  if (followed.const !== undefined) return { ...common, kind: "choice", options: [followed.const], initial: followed.const };
  const members = followed.anyOf ?? followed.oneOf;
  if (members) {
    const flat = members.map((one) => follow(one, root));
    if (flat.every((one) => one.const !== undefined || one.enum))
      return { ...common, kind: "choice", options: flat.flatMap((one) => one.enum ?? [one.const as Json]) };
    const options = flat.map((one) => ({ label: labelOf(one), control: () => inner(one) }));
    return { ...common, kind: "union", options };
  }
  switch (followed.type) {
    case "string":
      if (followed.format === "date-time") return { ...common, kind: "moment", input: "datetime-local" };
      if (followed.format === "date" || followed.format === "time")
        return { ...common, kind: "moment", input: followed.format };
      return {
        ...common,
        kind: "text",
        long: typeof common.initial === "string" && common.initial.includes("\n"),
        pattern: followed.pattern,
        minLength: followed.minLength,
        maxLength: followed.maxLength,
      };
    case "integer":
    case "number":
      return {
        ...common,
        kind: "number",
        whole: followed.type === "integer",
        minimum: followed.minimum,
        maximum: followed.maximum,
        over: followed.exclusiveMinimum,
        under: followed.exclusiveMaximum,
        step: followed.multipleOf,
      };
    case "boolean":
      return { ...common, kind: "bool" };
    case "null":
      return { ...common, kind: "none" };
    case "array":
      if (followed.prefixItems) return { ...common, kind: "places", places: followed.prefixItems.map(inner) };
      if (followed.items) {
        const items = followed.items;
        return { ...common, kind: "list", item: () => inner(items), minItems: followed.minItems, maxItems: followed.maxItems };
      }
      return { ...common, kind: "json" };
    case "object":
      if (followed.properties && Object.keys(followed.properties).length > 0) {
        const required = new Set(followed.required ?? []);
        const fields = Object.entries(followed.properties).map(([name, one]) => ({
          name,
          required: required.has(name),
          control: { ...inner(one), ...(one.description ? { description: one.description } : {}), ...defaultOf(one) },
        }));
        return { ...common, kind: "object", fields };
      }
      if (typeof followed.additionalProperties === "object") {
        const values = followed.additionalProperties;
        return { ...common, kind: "map", item: () => inner(values) };
      }
      return followed.additionalProperties === false
        ? { ...common, kind: "object", fields: [] }
        : { ...common, kind: "json" };
    default:
      return { ...common, kind: "json" };
  }
}

function defaultOf(schema: Schema): { initial?: Value } {
  return schema.default === undefined ? {} : { initial: schema.default };
}

function follow(schema: Schema, root: Schema): Schema {
  let at = schema;
  for (let steps = 0; at.$ref !== undefined && steps < DEPTH; steps += 1) {
    const { $ref, ...rest } = at;
    const name = $ref.startsWith("#/$defs/") ? decodeURIComponent($ref.slice("#/$defs/".length)) : "";
    const target = $ref === "#" ? root : root.$defs?.[name.replaceAll("~1", "/").replaceAll("~0", "~")];
    if (target === undefined) return rest;
    at = { ...target, ...rest };
  }
  return at;
}

function labelOf(schema: Schema): string {
  if (schema.title) return schema.title;
  if (schema.enum) return schema.enum.map((one) => String(one)).join(" | ");
  if (schema.const !== undefined) return String(schema.const);
  switch (schema.type) {
    case "null":
      return "nothing";
    case "string":
      return schema.format ?? "text";
    case "boolean":
      return "yes or no";
    case "integer":
      return "whole number";
    case "array":
      return "list";
    default:
      return schema.type ?? "JSON";
  }
}

/** What a control begins with. */
export function initialOf(control: Control, required = true): Value {
  if (control.initial !== undefined) return control.initial;
  if (!required) return undefined;
  switch (control.kind) {
    case "text":
      return undefined;
    case "bool":
      return false;
    case "none":
      return null;
    case "list":
      return Array.from({ length: control.minItems ?? 0 }, () => initialOf(control.item()) ?? null);
    case "places":
      return control.places.map((one) => initialOf(one) ?? null);
    case "map":
      return {};
    case "object": {
      const value: { [key: string]: Json } = {};
      for (const field of control.fields) {
        const one = initialOf(field.control, field.required);
        if (one !== undefined) value[field.name] = one;
      }
      return value;
    }
    case "union":
      return control.options[0] === undefined ? undefined : initialOf(control.options[0].control());
    case "json":
    case "choice":
    case "number":
    case "moment":
      return undefined;
  }
}

/** Which option of a union a value is of: the first that has nothing against it. */
export function optionOf(control: Control & { kind: "union" }, value: Value): number {
  const controls = control.options.map((one) => one.control());
  const fits = controls.findIndex((one) => isKind(one, value) && problemsOf(one, value, true).size === 0);
  if (fits >= 0) return fits;
  return Math.max(0, controls.findIndex((one) => isKind(one, value)));
}

function isKind(control: Control, value: Value): boolean {
  switch (control.kind) {
    case "text":
    case "moment":
      return typeof value === "string";
    case "number":
      return typeof value === "number" && (!control.whole || Number.isInteger(value));
    case "bool":
      return typeof value === "boolean";
    case "none":
      return value === null;
    case "choice":
      return control.options.some((one) => JSON.stringify(one) === JSON.stringify(value));
    case "list":
    case "places":
      return Array.isArray(value);
    case "object":
      return (
        isObject(value) && Object.keys(value).every((name) => control.fields.some((field) => field.name === name))
      );
    case "map":
      return isObject(value);
    case "union":
      return control.options.some((one) => isKind(one.control(), value));
    case "json":
      return true;
  }
}

export function isObject(value: Value): value is { [key: string]: Json } {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

/** What can be seen to be wrong, by the path of its control. What is right here, the server may still refuse. */
export function problemsOf(control: Control, value: Value, required: boolean, path = ""): Map<string, string> {
  const found = new Map<string, string>();
  const say = (message: string): Map<string, string> => found.set(path, message);
  const inside = (one: Control, inner: Value, name: string | number, needed: boolean): void => {
    for (const [key, message] of problemsOf(one, inner, needed, join(path, name))) found.set(key, message);
  };
  if (value === undefined) return required ? say("This is needed.") : found;
  switch (control.kind) {
    case "text":
      if (typeof value !== "string") return say("This must be text.");
      if (control.minLength !== undefined && value.length < control.minLength)
        return say(`At least ${control.minLength} characters.`);
      if (control.maxLength !== undefined && value.length > control.maxLength)
        return say(`At most ${control.maxLength} characters.`);
      return found;
    case "number":
      if (typeof value !== "number") return say("This must be a number.");
      if (control.whole && !Number.isInteger(value)) return say("This must be a whole number.");
      if (control.minimum !== undefined && value < control.minimum) return say(`At least ${control.minimum}.`);
      if (control.over !== undefined && value <= control.over) return say(`More than ${control.over}.`);
      if (control.maximum !== undefined && value > control.maximum) return say(`At most ${control.maximum}.`);
      if (control.under !== undefined && value >= control.under) return say(`Less than ${control.under}.`);
      return found;
    case "list":
      if (!Array.isArray(value)) return say("This must be a list.");
      if (control.minItems !== undefined && value.length < control.minItems) say(`At least ${control.minItems}.`);
      if (control.maxItems !== undefined && value.length > control.maxItems) say(`At most ${control.maxItems}.`);
      value.forEach((one, at) => inside(control.item(), blankAsMissing(one), at, true));
      return found;
    case "places":
      if (!Array.isArray(value)) return say("This must be a list.");
      control.places.forEach((one, at) => inside(one, value[at] ?? (one.kind === "none" ? null : undefined), at, true));
      return found;
    case "map":
      if (!isObject(value)) return say("This must be an object.");
      for (const [name, one] of Object.entries(value)) inside(control.item(), one, name, true);
      return found;
    case "object":
      if (!isObject(value)) return say("This must be an object.");
      for (const field of control.fields) inside(field.control, value[field.name], field.name, field.required);
      return found;
    case "union": {
      const option = control.options[optionOf(control, value)];
      if (option !== undefined) for (const [key, message] of problemsOf(option.control(), value, required, path)) found.set(key, message);
      return found;
    }
    default:
      return found;
  }
}

function blankAsMissing(value: Json): Value {
  return value === null ? undefined : value;
}

export function join(path: string, name: string | number): string {
  return path === "" ? String(name) : `${path}.${name}`;
}

/** The path in a form of a field that the server names, like `start.items[0].name`. */
export function pathOf(field: string, root: string): string {
  const path = field.replace(/\[['"]?([^\]'"]+)['"]?\]/g, ".$1");
  if (path === root) return "";
  return path.startsWith(`${root}.`) ? path.slice(root.length + 1) : path;
}

/** A value with another one at a path in it. */
export function put(value: Value, names: readonly (string | number)[], inner: Value): Value {
  const [name, ...rest] = names;
  if (name === undefined) return inner;
  if (typeof name === "number") {
    const list = Array.isArray(value) ? [...value] : [];
    list[name] = put(list[name], rest, inner) ?? null;
    return list;
  }
  const object: { [key: string]: Json } = isObject(value) ? { ...value } : {};
  const made = put(object[name], rest, inner);
  if (made === undefined) delete object[name];
  else object[name] = made;
  return object;
}

/** What an input of type datetime-local shows of a moment: the local time. */
export function localOf(text: string): string {
  const zoned = /(Z|[+-]\d\d:?\d\d)$/i.test(text);
  const date = new Date(text);
  if (!zoned || Number.isNaN(date.getTime())) return text.slice(0, 19);
  const local = new Date(date.getTime() - date.getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 19);
}

/** The moment that an input of type datetime-local means, with its offset. */
export function momentOf(local: string): string | undefined {
  const date = new Date(local);
  if (local === "" || Number.isNaN(date.getTime())) return undefined;
  const offset = -date.getTimezoneOffset();
  const two = (n: number): string => String(Math.trunc(Math.abs(n))).padStart(2, "0");
  const seconds = local.length === 16 ? `${local}:00` : local;
  return `${seconds}${offset < 0 ? "-" : "+"}${two(offset / 60)}:${two(offset % 60)}`;
}
