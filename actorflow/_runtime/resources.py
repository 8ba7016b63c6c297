"""Opens resources, each once in its scope, and closes them in reverse.

Theory of operation. A context manager may hold a cancel scope or a task group, which belong to the task that entered
them. So a shared one lives in a task of its own, which enters it, waits to be told, and leaves it; what an execution has
for itself is entered and left in the task that runs the body. Both stand inside a cancel scope that was there before
the resource: turned into a shield once the resource is open, it protects the closing without standing inside of what is
closed, where a shield made then would stand.

What is opening is opened for those who wait for it: the last of them to be cancelled takes it along. A task that asks
while it is being given up waits for the end of that, and opens it anew.
"""

from __future__ import annotations

import enum
import inspect
import logging
import math
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any

import anyio
from anyio import CancelScope

from actorflow._recipes import Kind, Need, Recipe, replaced
from actorflow._runtime import _backend
from actorflow._runtime.opening import Overdue, enter, leave, settle, with_place
from actorflow._runtime.timers import Timers
from actorflow.errors import InternalError, ResourceError
from actorflow.resources import Scope

__all__ = ["GRACE", "Pool", "StepPool", "settle"]

logger = logging.getLogger("actorflow")

GRACE = 5.0
"""Seconds that closing a resource may take before it is reported, and between reports."""

Spawn = Callable[[Callable[[], Coroutine[Any, Any, None]]], object]


class _Stage(enum.Enum):
    OPENING = "opening"
    OPEN = "open"
    OVER = "over"


class _Holding:
    """One resource in its pool."""

    __slots__ = (
        "abandoned", "asked", "close_error", "coroutine", "error", "made", "over", "plain", "ready", "recipe", "scope",
        "stage", "told", "value", "waiters",
    )  # fmt: skip

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.stage = _Stage.OPENING
        self.value: Any = None
        self.error: BaseException | None = None
        self.close_error: BaseException | None = None
        self.told: BaseException | None = None
        self.made: Coroutine[Any, Any, Any] | None = None
        self.coroutine: Coroutine[Any, Any, None] | None = None
        self.waiters = 0
        self.abandoned = False
        self.plain = False

    def share(self) -> None:
        """Prepares for a task of its own: plain values, the most, have none."""
        self.scope = CancelScope()
        self.ready = anyio.Event()
        self.asked = anyio.Event()
        self.over = anyio.Event()

    def abandon(self) -> None:
        """Nobody waits for its opening any more."""
        self.abandoned = True
        self.scope.cancel()


class Pool:
    """The resources of one scope: a runtime's, a run's, or an actor's incarnation's.

    Nothing is done until somebody asks. It must be closed by whoever made it, once nobody uses its resources any more.

    Args:
        scope: What it is for: ``runtime``, ``run`` or ``actor``.
        owner: Whose it is, for messages.
        spawn: Starts a task that outlives whoever asks; the pool ends it.
        timers: What reports of closings that hang are timed by.
        parent: The pool of the next longer-lived scope.
        grace: Seconds until such a report.
        broken: Told when a resource that is in use fails by itself; None logs it.

    Attributes:
        closed: Whether it opens nothing any more.
    """

    __slots__ = (
        "_broken",
        "_grace",
        "_holdings",
        "_opened",
        "_parent",
        "_scope",
        "_spawn",
        "_timers",
        "closed",
        "owner",
    )

    def __init__(
        self,
        scope: Scope,
        owner: str,
        *,
        spawn: Spawn,
        timers: Timers,
        parent: Pool | None = None,
        grace: float = GRACE,
        broken: Callable[[BaseException], object] | None = None,
    ) -> None:
        self._scope: Scope = scope
        self.owner = owner
        self._spawn = spawn
        self._timers = timers
        self._parent = parent
        self._grace = grace
        self._broken = broken
        self._holdings: dict[object, _Holding] = {}
        self._opened: list[_Holding] = []
        self.closed = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing to close, so that `close` would return at once."""
        return not self._opened and all(one.stage is not _Stage.OPENING for one in self._holdings.values())

    # ------------------------------------------------------------------------------------------------ asking
    async def arguments(self, needs: Iterable[Need]) -> dict[str, Any]:
        """What the parameters of a step get, by name.

        Raises:
            ResourceError: The pool is closed, or the loop ended while a resource was opening.
            BaseException: What a factory raised, the same object for everyone who waits for it. The next one to ask
                calls the factory again.
        """
        return {need.parameter: await self.get(need.recipe) for need in needs}

    def arguments_nowait(self, needs: Iterable[Need]) -> dict[str, Any]:
        """The same, where all of it is open already or is made by plain functions.

        Raises:
            anyio.WouldBlock: Something of it has to be opened; `arguments` does that.
        """
        return {need.parameter: self.get_nowait(need.recipe) for need in needs}

    async def get(self, recipe: Recipe) -> Any:  # Any: whatever the factory makes
        """One resource; opens it if need be."""
        return await self._get(replaced(recipe))

    def get_nowait(self, recipe: Recipe) -> Any:  # Any: whatever the factory makes
        """One resource; raises `anyio.WouldBlock` where opening it takes more than a call."""
        return self._get_nowait(replaced(recipe))

    def _of(self, scope: Scope) -> Pool:
        pool: Pool | None = self
        while pool is not None and pool._scope != scope:
            pool = pool._parent
        if pool is None:
            raise InternalError(
                f"{self.owner} has no place for resources of scope {scope!r}; this is a bug in actorflow, please report it",
                code="AF001",
            )
        return pool

    def _get_nowait(self, recipe: Recipe) -> Any:
        pool = self._of(recipe.scope)
        holding = pool._holdings.get(recipe.key)
        if holding is not None:
            if holding.stage is _Stage.OPEN:
                return holding.value
            raise anyio.WouldBlock
        if pool.closed:
            raise pool._is_closed(recipe)
        if recipe.kind is not Kind.VALUE:
            raise anyio.WouldBlock
        made = recipe.make(**{need.parameter: pool._get_nowait(need.recipe) for need in recipe.needs})
        holding = _Holding(recipe)
        if inspect.iscoroutine(made):
            holding.made = made
            pool._start(holding)
            raise anyio.WouldBlock
        holding.value, holding.stage = made, _Stage.OPEN
        pool._holdings[recipe.key] = holding
        return made

    async def _get(self, recipe: Recipe) -> Any:
        pool = self._of(recipe.scope)
        while True:
            try:
                return pool._get_nowait(recipe)
            except anyio.WouldBlock:
                pass
            holding = pool._holdings.get(recipe.key)
            if holding is None:
                holding = _Holding(recipe)
                pool._start(holding)
            elif holding.abandoned:
                await holding.ready.wait()
                continue
            holding.waiters += 1
            try:
                await holding.ready.wait()
            finally:
                holding.waiters -= 1
                if not holding.waiters and holding.stage is _Stage.OPENING:
                    holding.abandon()
            error = holding.error
            if error is not None:
                try:
                    raise error
                finally:
                    del self, pool, holding, error  # the traceback would hold them, and they the error
            if holding.stage is _Stage.OPEN:
                return holding.value

    def _is_closed(self, recipe: Recipe) -> ResourceError:
        return ResourceError(
            f"resource {recipe.name} was asked for after {self.owner} had ended; ask while it goes on", code="AF066"
        )

    # ------------------------------------------------------------------------------------------------ the task of one
    def _start(self, holding: _Holding) -> None:
        holding.share()
        self._holdings[holding.recipe.key] = holding

        def work() -> Coroutine[Any, Any, None]:
            holding.coroutine = self._hold(holding)
            return holding.coroutine

        self._spawn(work)

    async def _hold(self, holding: _Holding) -> None:
        """The whole life of a resource that takes more than a call."""
        try:
            # The first is cancelled by those who do not want it any more, the second is what that stops at.
            with holding.scope, CancelScope() as shield:
                await self._open_and_close(holding, shield)
        except anyio.get_cancelled_exc_class():
            holding.error = self._cut_off(holding.recipe, "opening")
            raise
        except Exception as error:  # noqa: BLE001 - it goes to those who asked
            holding.error = error
        except BaseException as error:
            holding.error = error
            raise
        finally:
            self._gone(holding)

    async def _open_and_close(self, holding: _Holding, shield: CancelScope) -> None:
        recipe = holding.recipe
        if holding.made is None:
            arguments = {need.parameter: await self._get(need.recipe) for need in recipe.needs}
            value, manager = await enter(recipe, arguments)
        else:
            value, manager = await holding.made, None
        # In one breath with the end of the opening: from here on it is for the pool to close it.
        shield.shield = True
        holding.value, holding.stage = value, _Stage.OPEN
        if manager is None:
            holding.plain = True
            return
        self._opened.append(holding)
        holding.ready.set()
        stopped = await _until_set(holding.asked)
        try:
            await leave(recipe, manager, holding.told if stopped is None else stopped)
        except anyio.get_cancelled_exc_class():
            holding.close_error = self._cut_off(recipe, "closing")
        except Exception as error:  # noqa: BLE001 - it goes to those who close, or to those who use it
            holding.close_error = error
        if stopped is not None and holding.close_error is None:
            holding.close_error = ResourceError(
                f"resource {recipe.name} of {self.owner} ended by itself while it was in use; let its factory hold on to "
                "it until it is closed, or raise an error that says why it cannot",
                code="AF065",
            )

    def _cut_off(self, recipe: Recipe, what: str) -> ResourceError:
        return ResourceError(
            f"the event loop of {self.owner} ended while resource {recipe.name} was {what}; let the program wait for "
            "its runs before it ends",
            code="AF067",
        )

    def _gone(self, holding: _Holding) -> None:
        """The task of a resource is over; a plain value stays."""
        if holding.made is not None:
            holding.made.close()  # in case that it never began
            holding.made = None
        holding.coroutine = None
        if not holding.plain:
            in_use = holding.stage is _Stage.OPEN and not holding.asked.is_set()
            holding.stage = _Stage.OVER
            if self._holdings.get(holding.recipe.key) is holding:
                del self._holdings[holding.recipe.key]
            if in_use:
                self._opened.remove(holding)
                self._report(holding)
        holding.ready.set()
        holding.over.set()

    def _report(self, holding: _Holding) -> None:
        """A resource failed while it was in use."""
        error = holding.close_error or holding.error
        if error is None:
            return
        if self._broken is not None:
            self._broken(error)
        else:
            logger.error("resource %s of %s failed", holding.recipe.name, self.owner, exc_info=error)

    # ------------------------------------------------------------------------------------------------ closing
    async def close(self, error: BaseException | None = None) -> tuple[BaseException, ...]:
        """Closes everything, in reverse order of opening; takes as long as that takes, whatever is cancelled.

        Args:
            error: What those who used it ended with; factories that are context managers are told.

        Returns:
            What was raised meanwhile, in that order.
        """
        self.closed = True
        errors: list[BaseException] = []
        cancelled: BaseException | None = None
        with CancelScope(shield=True):
            opening = [one for one in self._holdings.values() if one.stage is _Stage.OPENING]
            for holding in opening:
                holding.abandon()
            for holding in opening:
                with self._overdue(holding):
                    cancelled = await _wait_out(holding.ready) or cancelled
            while self._opened:
                holding = self._opened.pop()
                holding.told = error
                holding.asked.set()
                with self._overdue(holding):
                    cancelled = await _wait_out(holding.over) or cancelled
                if holding.close_error is not None:
                    errors.append(with_place(holding.recipe, holding.close_error))
        self._holdings.clear()
        if cancelled is not None:
            settle(cancelled, errors, self.owner)
            raise cancelled
        return tuple(errors)

    def _overdue(self, holding: _Holding) -> Overdue:
        subject = f"resource {holding.recipe.name} of {self.owner}"
        return Overdue(self._timers, self._grace, subject, holding.coroutine)


class StepPool:
    """The resources of one execution, opened and closed in the task that runs its body.

    Args:
        parent: The pool of the actor.
        owner: Whose it is, for messages.

    Example::

        async with StepPool(actor.pool, "Writer.publish") as pool:
            result = await body(event, **await pool.arguments(needs))
    """

    __slots__ = ("_entered", "_owner", "_parent", "_shield", "_values")

    def __init__(self, parent: Pool, owner: str) -> None:
        self._parent = parent
        self._owner = owner
        self._shield = CancelScope()
        self._values: dict[object, Any] = {}
        self._entered: list[tuple[Recipe, Any]] = []

    async def __aenter__(self) -> StepPool:
        self._shield.__enter__()
        return self

    async def arguments(self, needs: Iterable[Need]) -> dict[str, Any]:
        """What the parameters of the step get, by name; raises as `Pool.arguments` does."""
        return {need.parameter: await self._get(replaced(need.recipe)) for need in needs}

    async def _get(self, recipe: Recipe) -> Any:
        if recipe.scope != "step":
            return await self._parent._get(recipe)
        if recipe.key not in self._values:
            arguments = {need.parameter: await self._get(need.recipe) for need in recipe.needs}
            value, manager = await enter(recipe, arguments)
            self._values[recipe.key] = value
            if manager is not None:
                self._entered.append((recipe, manager))
        return self._values[recipe.key]

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        shield = self._shield
        shield.shield = True
        errors: list[BaseException] = []
        pool = self._parent
        while self._entered:
            recipe, manager = self._entered.pop()
            closing = leave(recipe, manager, error)
            try:
                with Overdue(pool._timers, pool._grace, f"resource {recipe.name} of {self._owner}", closing):
                    await closing
            except anyio.get_cancelled_exc_class() as cancelled:
                # A scope of one that was opened before: that one, further out, is to see it.
                error = error or cancelled
            except Exception as exc:  # noqa: BLE001 - the others are closed all the same
                if exc is not error:
                    errors.append(with_place(recipe, exc))
        shield.__exit__(None if error is None else type(error), error, traceback)
        if isinstance(error, anyio.get_cancelled_exc_class()) and not _backend.is_cancelled():
            # Nobody but one of the resources cancelled the body, and it is gone: what it said when it was closed is why.
            error = None
            if not errors:
                raise ResourceError(
                    f"a resource of {self._owner} cancelled the body that used it and gave no reason; "
                    "let its factory raise an error that says why",
                    code="AF065",
                )
        outcome = settle(error, errors, self._owner)
        if outcome is not None and outcome is not error:
            raise outcome
        return False


async def _until_set(event: anyio.Event) -> BaseException | None:
    """Waits for an event under a shield; returns the cancellation that came from a scope inside of the shield."""
    while True:
        try:
            await event.wait()
        except anyio.get_cancelled_exc_class() as cancelled:
            if anyio.current_effective_deadline() == -math.inf:
                return cancelled
            # asyncio's task.cancel(), when the loop shuts down: whoever uses the resource unwinds first, and then closes.
        else:
            return None


async def _wait_out(event: anyio.Event) -> BaseException | None:
    """Waits for an event under a shield, to the end; returns the cancellation by asyncio's task.cancel() meanwhile."""
    cancelled: BaseException | None = None
    while True:
        try:
            await event.wait()
        except anyio.get_cancelled_exc_class() as exc:
            cancelled = exc
        else:
            return cancelled
