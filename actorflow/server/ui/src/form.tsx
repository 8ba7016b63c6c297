// A form on the screen, for what forms.ts says of a schema.

import { useMemo, useState } from "preact/hooks";
import type { ComponentChildren, JSX } from "preact";
import { Refusal } from "./api";
import {
  type Control,
  type Value,
  controlOf,
  initialOf,
  isObject,
  join,
  localOf,
  momentOf,
  optionOf,
  pathOf,
  problemsOf,
  put,
} from "./forms";
import type { Fields, Json, Schema } from "./types";

type Set_ = (value: Value) => void;
type Problems = ReadonlyMap<string, string>;

interface Shown<C extends Control = Control> {
  id: string; // of the element, unique on the page
  base: string; // id of the form
  label: string;
  required: boolean;
  control: C;
  value: Value;
  set: Set_;
  path: string;
  problems: Problems;
}

const REST = "";

/** A form for a schema: fills in defaults, may be turned to JSON, and shows at its field what the server refuses. */
export function Form(props: {
  id: string;
  schema: Schema;
  initial?: Fields | undefined;
  verb: string;
  root: string; // what the server calls the value: start, value, edit.value
  submit: (value: Fields) => Promise<void>;
  children?: ComponentChildren;
}): JSX.Element {
  const control = useMemo(() => controlOf(props.schema), [props.schema]);
  const open = control.kind !== "object";
  const [value, setValue] = useState<Value>(() => props.initial ?? initialOf(control) ?? {});
  const [text, setText] = useState<string | null>(() => (open ? JSON.stringify(props.initial ?? {}, null, 2) : null));
  const [problems, setProblems] = useState<Problems>(new Map());
  const [busy, setBusy] = useState(false);

  const toggle = (): void => {
    if (text === null) setText(JSON.stringify(value ?? {}, null, 2));
    else {
      const read = parsed(text);
      if ("problem" in read) return setProblems(new Map([[REST, read.problem]]));
      setValue(read.value);
      setText(null);
      setProblems(new Map());
    }
  };
  const send = async (event: Event): Promise<void> => {
    event.preventDefault();
    if (busy) return;
    let made = value;
    if (text !== null) {
      const read = parsed(text);
      if ("problem" in read) return setProblems(new Map([[REST, read.problem]]));
      made = read.value;
    } else {
      const found = problemsOf(control, value, true);
      if (found.size) {
        setProblems(found);
        return focusOn(props.id, [...found.keys()][0] ?? "");
      }
    }
    setBusy(true);
    setProblems(new Map());
    try {
      await props.submit((made ?? {}) as Fields);
    } catch (error) {
      if (!(error instanceof Refusal)) setProblems(new Map([[REST, error instanceof Error ? error.message : String(error)]]));
      else {
        const path = error.field === null || text !== null ? REST : pathOf(error.field, props.root);
        const there = path !== REST && document.getElementById(`${props.id}-${path}`) !== null;
        setProblems(new Map([[there ? path : REST, error.message]]));
        if (there) focusOn(props.id, path);
      }
    } finally {
      setBusy(false);
    }
  };
  return (
    <form id={props.id} class="form" onSubmit={send} noValidate>
      <div class="form-head">
        <strong>{props.schema.title ?? "Event"}</strong>
        {open ? null : (
          <button type="button" class="quiet" aria-pressed={text !== null} onClick={toggle}>
            JSON
          </button>
        )}
      </div>
      {control.description ? <p class="hint">{control.description}</p> : null}
      {text !== null ? (
        <textarea
          id={`${props.id}-json`}
          class="code"
          aria-label={`${props.schema.title ?? "Event"} as JSON`}
          spellcheck={false}
          rows={Math.min(16, Math.max(4, text.split("\n").length + 1))}
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
        />
      ) : (
        <Inner id={`${props.id}-value`} base={props.id} label="" required control={control} value={value} set={setValue} path="" problems={problems} />
      )}
      {problems.has(REST) ? (
        <p class="problem" role="alert">
          {problems.get(REST)}
        </p>
      ) : null}
      <div class="form-foot">
        <button type="submit" class="primary" disabled={busy}>
          {busy ? "Sending…" : props.verb}
        </button>
        {props.children}
      </div>
    </form>
  );
}

function parsed(text: string): { value: Json } | { problem: string } {
  try {
    const value = JSON.parse(text.trim() || "{}") as Json;
    return isObject(value) ? { value } : { problem: "This must be a JSON object, like {}." };
  } catch (error) {
    return { problem: `This is not JSON: ${(error as Error).message}` };
  }
}

function focusOn(form: string, path: string): void {
  requestAnimationFrame(() => document.getElementById(`${form}-${path}`)?.focus());
}

/** A control with its label, its description and its problem. */
function Field(props: Shown): JSX.Element {
  const { control, path, problems, id } = props;
  const problem = problems.get(path);
  const about = [control.description ? `${id}-about` : "", problem ? `${id}-problem` : ""].filter(Boolean).join(" ");
  const group = ["object", "list", "map", "places", "union"].includes(control.kind);
  const described = (
    <>
      {control.description ? (
        <small id={`${id}-about`} class="hint">
          {control.description}
        </small>
      ) : null}
    </>
  );
  const wrong = problem ? (
    <p id={`${id}-problem`} class="problem" role="alert">
      {problem}
    </p>
  ) : null;
  if (group)
    return (
      <fieldset id={id} tabIndex={-1} class={problem ? "wrong" : ""}>
        <legend>
          {props.label}
          <Needed {...props} />
        </legend>
        {described}
        <Inner {...props} />
        {wrong}
      </fieldset>
    );
  if (control.kind === "bool")
    return (
      <div class="field">
        <label class="check" for={id}>
          <input
            id={id}
            type="checkbox"
            checked={props.value === true}
            aria-describedby={about || undefined}
            onChange={(event) => props.set(event.currentTarget.checked)}
          />
          {props.label}
        </label>
        {described}
        {wrong}
      </div>
    );
  return (
    <div class={problem ? "field wrong" : "field"}>
      <label for={id}>
        {props.label}
        <Needed {...props} />
      </label>
      {described}
      <Inner {...props} />
      {wrong}
    </div>
  );
}

function Needed(props: Shown): JSX.Element | null {
  return props.required && props.label && props.control.initial === undefined && props.control.kind !== "none" ? (
    <span class="needed" title="needed">
      {" "}
      *
    </span>
  ) : null;
}

/** A control by itself. */
function Inner(props: Shown): JSX.Element | null {
  const { control, value, set, id, base, path, problems } = props;
  const wrong = problems.has(path);
  const common = {
    id,
    "aria-invalid": wrong ? ("true" as const) : undefined,
    "aria-describedby":
      [control.description ? `${id}-about` : "", wrong ? `${id}-problem` : ""].filter(Boolean).join(" ") || undefined,
    "aria-required": props.required ? ("true" as const) : undefined,
    "aria-label": props.label ? undefined : "value",
  };
  switch (control.kind) {
    case "text": {
      const shown = typeof value === "string" ? value : "";
      const change = (text: string): void => set(text === "" && control.initial === undefined && !control.minLength && props.required ? "" : text);
      return control.long || shown.includes("\n") ? (
        <textarea {...common} rows={4} value={shown} onInput={(event) => change(event.currentTarget.value)} />
      ) : (
        <input {...common} type="text" value={shown} autocomplete="off" onInput={(event) => change(event.currentTarget.value)} />
      );
    }
    case "number":
      return (
        <input
          {...common}
          type="number"
          min={control.minimum ?? control.over}
          max={control.maximum ?? control.under}
          step={control.step ?? (control.whole ? 1 : "any")}
          value={typeof value === "number" ? value : ""}
          onInput={(event) => {
            const read = event.currentTarget.valueAsNumber;
            set(Number.isNaN(read) ? undefined : read);
          }}
        />
      );
    case "bool":
      return (
        <input {...common} type="checkbox" checked={value === true} onChange={(event) => set(event.currentTarget.checked)} />
      );
    case "choice": {
      const texts = control.options.map((one) => JSON.stringify(one));
      return (
        <select
          {...common}
          value={value === undefined ? "" : JSON.stringify(value)}
          onChange={(event) => set(event.currentTarget.value === "" ? undefined : (JSON.parse(event.currentTarget.value) as Json))}
        >
          {value === undefined || !props.required ? <option value="">choose…</option> : null}
          {control.options.map((one, k) => (
            <option key={texts[k]} value={texts[k]}>
              {String(one)}
            </option>
          ))}
        </select>
      );
    }
    case "moment": {
      const zoned = control.input === "datetime-local";
      const shown = typeof value === "string" ? (zoned ? localOf(value) : value) : "";
      return (
        <input
          {...common}
          type={control.input}
          step={control.input === "date" ? undefined : 1}
          value={shown}
          onInput={(event) => {
            const text = event.currentTarget.value;
            set(zoned ? momentOf(text) : text || undefined);
          }}
        />
      );
    }
    case "none":
      return <span class="hint">nothing</span>;
    case "json":
      return <JsonInput {...props} common={common} />;
    case "object":
      return (
        <div class="fields">
          {control.fields.length === 0 ? <p class="hint">Nothing to fill in.</p> : null}
          {control.fields.map((field) => (
            <Field
              key={field.name}
              base={base}
              id={`${base}-${join(path, field.name)}`}
              label={field.name}
              required={field.required}
              control={field.control}
              value={isObject(value) ? value[field.name] : undefined}
              set={(inner) => set(put(value, [field.name], inner))}
              path={join(path, field.name)}
              problems={problems}
            />
          ))}
        </div>
      );
    case "list": {
      const items = Array.isArray(value) ? value : [];
      return (
        <div class="items">
          {items.map((item, k) => {
            const at = join(path, k);
            return (
              <div class="item" key={k}>
                <Field
                  base={base}
              id={`${base}-${at}`}
                  label={`${k + 1}`}
                  required
                  control={control.item()}
                  value={item === null ? undefined : item}
                  set={(inner) => set(put(items, [k], inner))}
                  path={at}
                  problems={problems}
                />
                <button type="button" class="quiet" aria-label={`remove ${props.label} ${k + 1}`} onClick={() => set(items.filter((_, j) => j !== k))}>
                  ✕
                </button>
              </div>
            );
          })}
          <button
            type="button"
            class="quiet add"
            aria-label={`add to ${props.label || "the list"}`}
            onClick={() => {
              const item = control.item();
              set([...items, initialOf(item) ?? (item.kind === "text" ? "" : null)]);
            }}
          >
            + add
          </button>
        </div>
      );
    }
    case "places":
      return (
        <div class="items">
          {control.places.map((one, k) => (
            <Field
              key={k}
              base={base}
              id={`${base}-${join(path, k)}`}
              label={`${k + 1}`}
              required
              control={one}
              value={Array.isArray(value) ? (value[k] ?? undefined) : undefined}
              set={(inner) => set(put(value, [k], inner))}
              path={join(path, k)}
              problems={problems}
            />
          ))}
        </div>
      );
    case "map":
      return <MapInput {...(props as Shown<Control & { kind: "map" }>)} />;
    case "union":
      return <UnionInput {...(props as Shown<Control & { kind: "union" }>)} />;
  }
}

function UnionInput(props: Shown<Control & { kind: "union" }>): JSX.Element {
  const { control, value, set, id, base, problems } = props;
  const [chosen, choose] = useState(() => (value === undefined ? 0 : optionOf(control, value)));
  const option = control.options[chosen];
  const inner = option?.control();
  return (
    <div class="union">
      <select
        aria-label={`kind of ${props.label || "value"}`}
        value={String(chosen)}
        onChange={(event) => {
          const k = Number(event.currentTarget.value);
          choose(k);
          const other = control.options[k];
          set(other === undefined ? undefined : initialOf(other.control()));
        }}
      >
        {control.options.map((one, k) => (
          <option key={k} value={String(k)}>
            {one.label}
          </option>
        ))}
      </select>
      {inner === undefined || inner.kind === "none" ? null : (
        <Inner {...props} base={base} id={`${id}-value`} label="" control={inner} value={value} set={set} problems={problems} />
      )}
    </div>
  );
}

function MapInput(props: Shown<Control & { kind: "map" }>): JSX.Element {
  const { control, set, base, path, problems } = props;
  const value = isObject(props.value) ? props.value : {};
  const [name, setName] = useState("");
  const add = (): void => {
    if (name === "" || Object.hasOwn(value, name)) return;
    set(put(value, [name], initialOf(control.item()) ?? ""));
    setName("");
  };
  return (
    <div class="items">
      {Object.keys(value).map((key) => (
        <div class="item" key={key}>
          <Field
            base={base}
              id={`${base}-${join(path, key)}`}
            label={key}
            required
            control={control.item()}
            value={value[key]}
            set={(inner) => set(put(value, [key], inner ?? null))}
            path={join(path, key)}
            problems={problems}
          />
          <button type="button" class="quiet" aria-label={`remove ${key}`} onClick={() => set(put(value, [key], undefined))}>
            ✕
          </button>
        </div>
      ))}
      <div class="item">
        <input type="text" aria-label={`name of a new entry of ${props.label || "the map"}`} placeholder="name" value={name} onInput={(event) => setName(event.currentTarget.value)} />
        <button type="button" class="quiet" onClick={add}>
          + add
        </button>
      </div>
    </div>
  );
}

function JsonInput(props: Shown & { common: object }): JSX.Element {
  const [text, setText] = useState(() => (props.value === undefined ? "" : JSON.stringify(props.value)));
  const [wrong, setWrong] = useState(false);
  return (
    <>
      <textarea
        {...props.common}
        class="code"
        rows={2}
        spellcheck={false}
        placeholder="JSON"
        value={text}
        onInput={(event) => {
          const read = event.currentTarget.value;
          setText(read);
          try {
            props.set(read.trim() === "" ? undefined : (JSON.parse(read) as Json));
            setWrong(false);
          } catch {
            props.set(read);
            setWrong(true);
          }
        }}
      />
      {wrong ? <small class="hint">not JSON, so it is taken as text</small> : null}
    </>
  );
}
