import assert from "node:assert/strict";
import { test } from "node:test";
import { controlOf, initialOf, localOf, momentOf, optionOf, pathOf, problemsOf, put, type Control } from "../src/forms";
import type { Schema } from "../src/types";

const SCHEMA: Schema = {
  title: "Order",
  type: "object",
  properties: {
    topic: { type: "string", description: "What about", minLength: 2 },
    rounds: { type: "integer", minimum: 1, maximum: 9, default: 3 },
    ratio: { type: "number", exclusiveMinimum: 0 },
    tone: { type: "string", enum: ["DRY", "WARM"], default: "WARM" },
    draft: { type: "boolean" },
    due: { anyOf: [{ type: "string", format: "date-time" }, { type: "null" }], default: null },
    tags: { type: "array", items: { type: "string" }, default: ["news"] },
    author: { $ref: "#/$defs/Author" },
    paid: { anyOf: [{ $ref: "#/$defs/Author" }, { type: "integer" }] },
    pair: { type: "array", prefixItems: [{ type: "integer" }, { type: "string" }], minItems: 2, maxItems: 2 },
    scores: { type: "object", additionalProperties: { type: "number" } },
    anything: {},
  },
  required: ["topic", "draft", "author", "paid"],
  $defs: { Author: { title: "Author", type: "object", properties: { name: { type: "string" }, boss: { $ref: "#/$defs/Author" } }, required: ["name"] } },
};

function field(name: string): Control {
  const control = controlOf(SCHEMA);
  assert.equal(control.kind, "object");
  const found = control.kind === "object" ? control.fields.find((one) => one.name === name) : undefined;
  assert.ok(found);
  return found.control;
}

test("each kind of schema has its control", () => {
  const kinds = Object.keys(SCHEMA.properties ?? {}).map((name) => [name, field(name).kind]);
  assert.deepEqual(Object.fromEntries(kinds), {
    topic: "text", rounds: "number", ratio: "number", tone: "choice", draft: "bool", due: "union", tags: "list",
    author: "object", paid: "union", pair: "places", scores: "map", anything: "json",
  });
  assert.equal(controlOf({ type: "object" }).kind, "json");
  assert.equal(field("topic").description, "What about");
});

test("defaults are filled in, and what is needed has a place", () => {
  assert.deepEqual(initialOf(controlOf(SCHEMA)), {
    rounds: 3, tone: "WARM", draft: false, due: null, tags: ["news"], author: {}, paid: {},
  });
});

test("a schema that holds itself ends", () => {
  const author = field("author");
  assert.equal(author.kind, "object");
});

test("problems stand at their fields", () => {
  const problems = problemsOf(controlOf(SCHEMA), { topic: "a", rounds: 12, ratio: 0, draft: true, author: {}, paid: 3, pair: [1, "x"] }, true);
  assert.deepEqual(Object.fromEntries(problems), {
    topic: "At least 2 characters.", rounds: "At most 9.", ratio: "More than 0.", "author.name": "This is needed.",
  });
  assert.equal(problemsOf(controlOf(SCHEMA), { topic: "ab", draft: false, author: { name: "x" }, paid: 1 }, true).size, 0);
});

test("a union shows the member that its value is of", () => {
  const paid = field("paid");
  assert.ok(paid.kind === "union");
  assert.deepEqual(paid.options.map((one) => one.label), ["Author", "whole number"]);
  assert.equal(optionOf(paid, 3), 1);
  assert.equal(optionOf(paid, { name: "x" }), 0);
});

test("the server's names of fields are the form's", () => {
  assert.deepEqual(["start", "start.name", "start.items[0].name", "start['a']"].map((one) => pathOf(one, "start")), ["", "name", "items.0.name", "start.a".slice(6)]);
});

test("values are put without changing what was there", () => {
  const before = { a: [{ b: 1 }] };
  assert.deepEqual(put(before, ["a", 0, "b"], 2), { a: [{ b: 2 }] });
  assert.deepEqual(put(before, ["a"], undefined), {});
  assert.deepEqual(before, { a: [{ b: 1 }] });
});

test("moments have offsets, and are shown in local time", () => {
  const moment = momentOf("2026-03-04T05:06");
  assert.match(moment ?? "", /^2026-03-04T05:06:00[+-]\d\d:\d\d$/);
  assert.equal(localOf(moment ?? ""), "2026-03-04T05:06:00");
  assert.equal(momentOf(""), undefined);
});
