"""The rules that a workflow must keep so that its events can flow: pure functions over its steps.

What a rule cannot know it assumes to be right: a step that may return any `Event` may return each, a branch may end in
a step that returns None, and rules that depend on an annotation which is at fault itself keep quiet.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeGuard

import attrs

from actorflow._options import GraphCheck
from actorflow._spec import StepSpec
from actorflow._ways import collectors_of, handlers_of
from actorflow.errors import Problem
from actorflow.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StepFailedEvent, StopEvent
from actorflow.states import STATE_RULES, find_state_problems

__all__ = ["RULES", "Survey", "find_problems"]

RULES: dict[str, str] = {
    "AF101": "A workflow has at least one step.",
    "AF102": "A step accepts the start event.",
    "AF103": "All steps that accept a start event accept the same class.",
    "AF104": "A step returns a StopEvent.",
    "AF105": "Every event that a step returns is accepted by a step.",
    "AF106": "Every event that a step accepts is returned by a step, or comes from outside.",
    "AF107": "Every step can be reached from the start event or from an event from outside.",
    "AF108": "Every step leads to a StopEvent, or to an end of its branch.",
    "AF109": "No step accepts a StopEvent: it ends the run.",
    "AF110": "A method that takes an event and returns events is a step, or its name begins with an underscore.",
    "AF111": "Free functions that are steps have names of their own.",
    "AF120": "A step is a function, async or plain, or an async generator, and not a plain generator.",
    "AF121": "A step has a parameter for its event.",
    "AF122": "Every parameter of a step has an annotation, except for one named ctx or context.",
    "AF123": "An event parameter of a step is annotated with subclasses of Event, or with a list of them.",
    "AF124": "Parameters of a step beside its events, its context and its resources have defaults.",
    "AF125": "A step has a return annotation.",
    "AF126": "A step returns events, a list of events, or None.",
    "AF127": "The annotations of a step can be read where it is defined.",
    "AF128": "A step has at most one context parameter.",
    "AF129": "What a step is given does not stand, positional-only, behind a parameter that keeps its default.",
    "AF131": "The timeout of a workflow is greater than 0, or None.",
    "AF132": "on_unhandled is 'error' or 'dead_letter'.",
    "AF133": "num_workers is a whole number of at least 1.",
    "AF134": "inbox is a whole number of at least 1.",
    "AF135": "The timeout of a step is greater than 0, or None.",
    "AF136": "retry_policy is something that can decide on another attempt.",
    "AF137": "waits_for names events that can be sent to a run.",
    "AF138": "skip_graph_checks names checks that there are.",
    "AF141": "executor is 'thread', or 'process' for a plain function of a module that takes its event only.",
    "AF142": "The idle_timeout of a step is greater than 0, or None.",
    "AF143": "overflow is one of its four words, or conflate(key).",
    "AF144": "inbox_limit is a whole number of at least the inbox's capacity, or None.",
    "AF145": "limit is the name of a limit of the runtime, or keyed(name, key).",
    "AF146": "num_concurrent_runs is a whole number of at least 1, or None.",
    "AF147": "on_stall is 'fail' or 'idle'.",
    **STATE_RULES,
    "AF153": "A step that takes a list of events takes no other event parameter.",
    "AF154": "Collect(...) marks a list of events.",
    "AF155": "A list of events that a step takes comes of a list that a step returns.",
    "AF156": "key is for steps with several event parameters.",
    "AF157": "A key is a field of every event that it correlates, or a function of an event.",
    "AF158": "An async generator, and no other step, is annotated with an async iterator of events.",
    "AF160": "A handler of @catch_error takes one event, a StepFailedEvent.",
    "AF161": "At most one handler of @catch_error names no steps.",
    "AF162": "max_recoveries is a whole number of at least 1.",
    "AF163": "for_steps is a list of names of steps, none of them a handler's, or None.",
    "AF164": "Handlers of @catch_error name different steps.",
    "AF165": "A StepFailedEvent goes to handlers of @catch_error only.",
    "AF166": "supervision is a Supervise, or None.",
    "AF260": "rate is a Rate, or None.",
    "AF261": "breaker is a Breaker, or None.",
    "AF262": "priority is the name of a field, or a function of the event.",
    "AF263": "A step with a priority has an overflow that does not go by the order of arrival.",
    "AF264": "A step that takes several events at a time has no priority, and no limit of each key.",
    "AF291": "max_waiting is a whole number of at least 1.",
}
"""What each problem's id asks for."""


@attrs.frozen(kw_only=True)
class Survey:
    """A workflow's steps, as the rules look at them.

    Attributes:
        name: Name of the workflow class.
        steps: Its steps in the order of their declaration.
        inputs_known: Whether it is certain what every step accepts.
        outputs_known: Whether it is certain what every step emits.
        skips: Checks of the graph that no step of the workflow is subject to.

    Example:
        >>> [problem.code for _, problem in find_problems(Survey(name="Writer", steps=()))]
        ['AF101']
    """

    name: str
    steps: Sequence[StepSpec]
    inputs_known: bool = True
    outputs_known: bool = True
    skips: frozenset[str] = frozenset()

    def is_exempt(self, step: StepSpec, check: GraphCheck) -> bool:
        """Whether the author answers for a step in this."""
        return check in self.skips or check in step.config.skip_graph_checks

    def start_events(self) -> tuple[type[StartEvent], ...]:
        """The start event classes that steps name; StartEvent itself where only a wildcard step gets it."""
        named = dict.fromkeys(a for step in self.steps for a in step.accepts if issubclass(a, StartEvent))
        if not named and any(step.receives(StartEvent) for step in self.steps):
            return (StartEvent,)
        return tuple(named)

    def stop_events(self) -> tuple[type[StopEvent[Any]], ...]:
        """The stop event classes that steps name; StopEvent itself where one may return any event."""
        named = dict.fromkeys(event for step in self.steps for event in step.emits if _is_stop(event))
        if not named and any(issubclass(StopEvent, e) for step in self.steps for e in step.emits):
            return (StopEvent,)
        return tuple(named)

    def answers(self, step: StepSpec) -> tuple[type[Event], ...]:
        """The classes of a step's events that come from outside by what they are; any Event is no such class."""
        if step.catches is not None:
            return ()
        entries = (HumanResponseEvent, *(waited for other in self.steps for waited in other.config.waits_for))
        return tuple(accepted for accepted in step.accepts if issubclass(accepted, entries))

    def from_outside(self, step: StepSpec) -> tuple[type[Event], ...]:
        """The classes of events from outside that a step accepts, by what they are or because its author says so."""
        answers = self.answers(step)
        if "reachability" not in step.config.skip_graph_checks:
            return answers
        missed = [accepted for accepted in step.accepts if not _is_produced(self, step, accepted)]
        if not missed and self.steps.index(step) not in _spread(_entries(self), self.comes_to):
            missed = list(step.accepts)
        return tuple(accepted for accepted in step.accepts if accepted in answers or accepted in missed)

    def is_waited_for(self, event: type[Event]) -> bool:
        """Whether an event that steps emit may be kept for a body's wait."""
        return issubclass(event, HumanResponseEvent) or any(step.may_await(event) for step in self.steps)

    def leads_to(self, index: int) -> set[int]:
        """Indices of the steps that get what a step emits."""
        return {
            k
            for event in self.steps[index].emits
            for k, step in enumerate(self.steps)
            if step.may_receive(event) or step.may_await(event)
        }

    def comes_to(self, index: int) -> set[int]:
        """Indices of the steps that a run comes to from a step: those it leads to, and the handler of its failure."""
        handler = handlers_of(self.steps)[index]
        return self.leads_to(index) | ({handler} if handler is not None else set())


def _is_stop(event: type[Event]) -> TypeGuard[type[StopEvent[Any]]]:
    return issubclass(event, StopEvent)


Found = tuple[int, Problem]
Rule = Callable[[Survey], Iterator[Found]]


def find_problems(survey: Survey) -> list[Found]:
    """Checks a workflow's steps against every rule.

    Returns:
        Problems with the index of the step that each is about, -1 for the whole workflow, in that order.
    """
    found = [problem for rule in _rules(survey) for problem in rule(survey)]
    return sorted(found, key=lambda pair: pair[0])


def _rules(survey: Survey) -> Iterator[Rule]:
    if not survey.steps:
        yield _no_step
        return
    if survey.inputs_known:
        yield _no_start
    yield _several_starts
    yield _states
    yield _handlers
    yield _takes_failures
    if survey.outputs_known:
        yield _no_stop
    yield _accepts_stop
    if survey.outputs_known:
        yield _never_produced
    if survey.inputs_known:
        yield _never_consumed
    if survey.inputs_known and survey.outputs_known:
        yield _never_listed
        yield _unreachable
        yield _dead_end


def _whole(survey: Survey, code: str, message: str, hint: str) -> Found:
    return -1, Problem(code=code, subject=survey.name, message=message, hint=hint)


def _about(survey: Survey, index: int, code: str, message: str, hint: str) -> Found:
    step = survey.steps[index]
    subject = f"{survey.name}.{step.name}"
    return index, Problem(code=code, subject=subject, message=message, hint=hint, location=step.location)


# -- rules about the whole workflow


def _no_step(survey: Survey) -> Iterator[Found]:
    yield _whole(survey, "AF101", "it has no step", "Write an async method and decorate it with @step")


def _no_start(survey: Survey) -> Iterator[Found]:
    if not survey.start_events():
        yield _whole(
            survey,
            "AF102",
            "no step accepts a StartEvent, so no run could begin",
            "Let the first step accept StartEvent, or a subclass of it",
        )


def _several_starts(survey: Survey) -> Iterator[Found]:
    starts = survey.start_events()
    if len(starts) > 1:
        names = ", ".join(
            f"{start.__name__} ({', '.join(step.name for step in survey.steps if start in step.accepts)})"
            for start in starts
        )
        yield _whole(
            survey,
            "AF103",
            f"its steps accept {len(starts)} start events: {names}",
            "Accept one and the same class in all of them; a run begins with one event",
        )


def _no_stop(survey: Survey) -> Iterator[Found]:
    if not survey.stop_events():
        yield _whole(
            survey,
            "AF104",
            "no step returns a StopEvent, so no run could end",
            "Name StopEvent, or a subclass of it, in the return annotation of the last step",
        )


def _states(survey: Survey) -> Iterator[Found]:
    return find_state_problems(survey.name, survey.steps)


# -- rules about failures


def _takes_failures(survey: Survey) -> Iterator[Found]:
    for k, step in enumerate(survey.steps):
        for accepted in step.accepts if step.catches is None else ():
            if issubclass(accepted, StepFailedEvent):
                yield _about(
                    survey,
                    k,
                    "AF165",
                    f"it accepts {accepted.__name__}, which only handlers of failures get",
                    "Mark it with @catch_error in place of @step",
                )


def _handlers(survey: Survey) -> Iterator[Found]:
    names = {step.name: step for step in survey.steps}
    plain = [step.name for step in survey.steps if step.catches is None]
    claimed: dict[str, str] = {}
    rest: str | None = None
    for k, step in enumerate(survey.steps):
        if step.catches is None:
            continue
        if step.catches.for_steps is None:
            if rest is not None:
                message = f"it names no steps, and neither does {rest}: both would get every failure"
                yield _about(
                    survey, k, "AF161", message, "Keep one of them, or say which steps each is for: for_steps=[...]"
                )
            rest = rest or step.name
        for name in dict.fromkeys(step.catches.for_steps or ()):
            if name not in names:
                near = difflib.get_close_matches(name, plain, n=1)
                hint = f"Did you mean {near[0]!r}?" if near else f"There {_are(plain)}"
                yield _about(survey, k, "AF163", f"for_steps names {name!r}, which is no step", hint)
            elif names[name].catches is not None:
                what = "itself" if name == step.name else f"{name!r}"
                message = f"for_steps names {what}, which is a handler: what fails in one fails the run"
                yield _about(survey, k, "AF163", message, "Name steps only")
            elif claimed.setdefault(name, step.name) != step.name:
                message = f"for_steps names {name!r}, and so does that of {claimed[name]}"
                yield _about(survey, k, "AF164", message, "Let one handler have it")


def _are(names: Sequence[str]) -> str:
    return f"{'is' if len(names) == 1 else 'are'} {_listed([repr(name) for name in names])}"


# -- rules about what goes from step to step


def _accepts_stop(survey: Survey) -> Iterator[Found]:
    for k, step in enumerate(survey.steps):
        for accepted in step.accepts:
            if issubclass(accepted, StopEvent):
                yield _about(
                    survey,
                    k,
                    "AF109",
                    f"it accepts {accepted.__name__}, which ends the run and goes to no step",
                    "Let the step that returns it return an event of its own for this one",
                )


def _never_consumed(survey: Survey) -> Iterator[Found]:
    for k, step in enumerate(survey.steps):
        for event in step.emits:
            if not _is_consumed(survey, event) and not survey.is_exempt(step, "terminal_event"):
                yield _about(
                    survey,
                    k,
                    "AF105",
                    f"it returns {event.__name__}, which no step accepts",
                    _hint_for_produced(survey, event),
                )


def _never_produced(survey: Survey) -> Iterator[Found]:
    for k, step in enumerate(survey.steps):
        for accepted in step.accepts:
            if survey.is_exempt(step, "reachability") or issubclass(accepted, StopEvent | StepFailedEvent):
                continue
            if not _is_produced(survey, step, accepted):
                yield _about(
                    survey,
                    k,
                    "AF106",
                    f"it accepts {accepted.__name__}, which no step returns",
                    _hint_for_accepted(survey, accepted),
                )


def _is_consumed(survey: Survey, event: type[Event]) -> bool:
    return (
        issubclass(event, StopEvent | InputRequiredEvent)
        or survey.is_waited_for(event)
        or any(step.may_receive(event) for step in survey.steps)
    )


def _is_produced(survey: Survey, step: StepSpec, accepted: type[Event]) -> bool:
    if accepted in survey.answers(step) or step.catches is not None:
        return True
    exact = not step.config.accept_event_subclasses
    produced = [*survey.start_events(), *(event for other in survey.steps for event in other.emits)]
    return any(
        issubclass(accepted, event) or (not exact and issubclass(event, accepted))
        for event in produced
        if not issubclass(event, StopEvent)
    )


# -- rules about ways through the workflow


def _never_listed(survey: Survey) -> Iterator[Found]:
    collectors = collectors_of(survey.steps)
    for k, step in enumerate(survey.steps):
        if step.collect is None or any(k in gathering for gathering in collectors):
            continue
        if not any(_is_produced(survey, step, accepted) for accepted in step.accepts):
            continue  # that is told already
        names = _listed([accepted.__name__ for accepted in step.accepts], "or")
        message = f"it takes a list of {names}, and no list that a step returns leads to it"
        before = [j for j, gathering in enumerate(collectors) if gathering and k in _spread({j}, survey.comes_to)]
        if before:
            openers = _listed([survey.steps[j].name for j in before])
            others = dict.fromkeys(survey.steps[other].name for j in before for other in collectors[j])
            message += f": that of {openers} is gathered before, by {_listed(list(others))}"
        maker, event = next(
            ((maker.name, event) for maker in survey.steps for event in maker.bare if step.may_receive(event)),
            ("a step that leads to it", step.accepts[0]),
        )
        hint = f"Let {maker} return list[{event.__name__}], or take {names} one by one and use ctx.collect_events"
        yield _about(survey, k, "AF155", message, hint)


def _unreachable(survey: Survey) -> Iterator[Found]:
    if not survey.start_events():
        return
    reached = _reachable(survey)
    for k, step in enumerate(survey.steps):
        if k not in reached and not survey.is_exempt(step, "reachability"):
            senders = [s.name for j, s in enumerate(survey.steps) if k in survey.comes_to(j)]
            if step.catches is not None and not senders:
                message = "no event can reach it: it covers no step"
            else:
                message = (
                    f"no event can reach it: what it accepts comes only from {_listed(senders)}, which no run reaches"
                )
            hint = f"Let a step that runs return {_listed([a.__name__ for a in step.accepts], 'or')}"
            if step.catches is not None:
                hint = "Let it cover a step that runs, or take it out"
            yield _about(survey, k, "AF107", message, hint)


def _dead_end(survey: Survey) -> Iterator[Found]:
    if not survey.stop_events():
        return
    reached = _reachable(survey)
    ending = {k for k, step in enumerate(survey.steps) if _may_end(survey, step)}
    forwards = [survey.leads_to(k) for k in range(len(survey.steps))]
    backwards = [{j for j, onwards in enumerate(forwards) if k in onwards} for k in range(len(survey.steps))]
    good = _spread(ending, backwards.__getitem__)
    for k in range(len(survey.steps)):
        if k in reached and k not in good and not survey.is_exempt(survey.steps[k], "dead_end"):
            loop = sorted(_spread({k}, survey.leads_to) - {k})
            names = f", only to {_listed([survey.steps[j].name for j in loop])}" if loop else ", only to itself"
            yield _about(
                survey,
                k,
                "AF108",
                f"it leads to no StopEvent{names}",
                "Let it, or a step that its events go to, return a StopEvent, or None where a branch ends",
            )


def _reachable(survey: Survey) -> set[int]:
    """Steps that a run may come to."""
    trusted = {k for k, step in enumerate(survey.steps) if "reachability" in step.config.skip_graph_checks}
    return _spread(_entries(survey) | trusted, survey.comes_to)


def _entries(survey: Survey) -> set[int]:
    """Steps that a run comes to first. One whose events nobody produces counts: it is reported for that already."""
    start = survey.start_events()
    return {
        k
        for k, step in enumerate(survey.steps)
        if any(step.receives(event) for event in start)
        or survey.answers(step)
        or any(not _is_produced(survey, step, accepted) for accepted in step.accepts)
    }


def _may_end(survey: Survey, step: StepSpec) -> bool:
    """Whether a branch may end at a step: by a stop, by None, by an exception, or in somebody else's hands."""
    return (
        step.returns_none
        or not step.emits
        or survey.is_exempt(step, "dead_end")
        or any(
            issubclass(event, StopEvent | InputRequiredEvent)
            or issubclass(StopEvent, event)
            or survey.is_waited_for(event)
            or not _is_consumed(survey, event)
            for event in step.emits
        )
    )


def _spread(begin: Iterable[int], onwards: Callable[[int], set[int]]) -> set[int]:
    seen = set(begin)
    todo = list(seen)
    while todo:
        new = onwards(todo.pop()) - seen
        seen |= new
        todo += new
    return seen


# -- hints


def _hint_for_produced(survey: Survey, event: type[Event]) -> str:
    steps = [step for step in survey.steps if step.catches is None]
    for step in steps:
        for accepted in step.accepts:
            if accepted.__name__ == event.__name__:
                return f"{survey.name}.{step.name} accepts another class of that name, {_full_name(accepted)}; use one"
            if issubclass(event, accepted):
                return (
                    f"{survey.name}.{step.name} accepts {accepted.__name__} but not its subclasses; "
                    "drop accept_event_subclasses=False, or accept it by name"
                )
    near = _nearest(event, [accepted for step in steps for accepted in step.accepts])
    if near is not None:
        takers = _listed([f"{survey.name}.{step.name}" for step in steps if near in step.accepts])
        return f"Did you mean {near.__name__}, which {takers} {'accept' if ' and ' in takers else 'accepts'}?"
    return "Write a step that accepts it; for an event that is only shown use ctx.write_event_to_stream"


def _hint_for_accepted(survey: Survey, accepted: type[Event]) -> str:
    produced = [event for step in survey.steps for event in step.emits if not issubclass(event, StopEvent)]
    for event in produced:
        if event.__name__ == accepted.__name__:
            return f"Another class of that name is returned, {_full_name(event)}; use one"
    near = _nearest(accepted, produced)
    if near is not None:
        makers = _listed([f"{survey.name}.{step.name}" for step in survey.steps if near in step.emits])
        return f"Did you mean {near.__name__}, which {makers} {'return' if ' and ' in makers else 'returns'}?"
    return (
        "Name it in the return annotation of the step that returns or sends it; "
        "if it comes from outside, derive it from HumanResponseEvent"
    )


def _nearest(event: type[Event], candidates: Iterable[type[Event]]) -> type[Event] | None:
    by_name = {candidate.__name__: candidate for candidate in candidates}
    near = difflib.get_close_matches(event.__name__, by_name, n=1, cutoff=0.7)
    return by_name[near[0]] if near else None


def _full_name(event: type[Event]) -> str:
    return f"{event.__module__}.{event.__qualname__}"


def _listed(names: Sequence[str], word: str = "and") -> str:
    return f" {word} ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "nothing"
