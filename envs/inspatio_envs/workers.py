"""Slots of a vector env in several processes, so that they do not share Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from inspatio_sim.errors import InputError
from inspatio_sim.kernels import chunk_bounds

START_METHOD = "forkserver"  # a plain fork would copy locks held by threads that the child lacks
CLOSE_TIMEOUT_S = 5.0


class WorkerDied(RuntimeError):
    """A worker process ended unexpectedly."""


class Workers:
    """Processes that each hold some slots of a vector env, in order.

    Args:
        slots: all arguments of each slot.
        num_workers: at most the number of slots.
        autoreset_mode: as for `InspatioVectorEnv`.
        render_mode: render mode of every slot.
    """

    def __init__(
        self, slots: Sequence[Mapping[str, Any]], num_workers: int, autoreset_mode: str, render_mode: str | None
    ) -> None:
        context = get_context(START_METHOD)
        self._bounds = chunk_bounds(len(slots), num_workers)
        self._connections: list[Connection] = []
        self._processes = []
        num_threads = max((os.cpu_count() or 1) // num_workers, 1)
        for k, (start, stop) in enumerate(self._bounds):
            here, there = context.Pipe()
            options = {
                "slots": list(slots[start:stop]),
                "first_slot": start,
                "autoreset_mode": autoreset_mode,
                "render_mode": render_mode,
            }
            process = context.Process(
                target=_work, args=(there, options, num_threads), name=f"inspatio-envs-{k}", daemon=True
            )
            process.start()
            there.close()
            self._connections.append(here)
            self._processes.append(process)

    def of(self, slot: int) -> int:
        """Index of the worker that holds a slot."""
        return next(k for k, (start, stop) in enumerate(self._bounds) if start <= slot < stop)

    def reset_slots(
        self, slots: Sequence[int], seeds: Sequence[int | None], options: Sequence[Mapping[str, Any] | None]
    ) -> list[Any]:
        """`InspatioVectorEnv.reset_slots`; each worker resets its own."""
        mine = [[j for j, slot in enumerate(slots) if self.of(slot) == k] for k in range(len(self._bounds))]
        asked = {
            k: (
                "reset_slots",
                [slots[j] - self._bounds[k][0] for j in chosen],
                [seeds[j] for j in chosen],
                [options[j] for j in chosen],
            )
            for k, chosen in enumerate(mine)
            if chosen
        }
        answers = self._ask(asked)
        found = {j: answer for k in asked for j, answer in zip(mine[k], answers[k], strict=True)}
        return [found[j] for j in range(len(slots))]

    def step_slots(self, actions: Sequence[Any]) -> list[Any]:
        """`InspatioVectorEnv.step_slots`."""
        asked = {k: ("step_slots", actions[start:stop]) for k, (start, stop) in enumerate(self._bounds)}
        return [step for answer in self._ask(asked).values() for step in answer]

    def render(self) -> list[Any]:
        """What each slot renders."""
        answers = self._ask({k: ("render",) for k in range(len(self._bounds))})
        return [picture for answer in answers.values() for picture in answer]

    def call(self, slot: int, name: str, *arguments: Any, **named: Any) -> Any:
        """An attribute of a slot's env, or what its method returns."""
        k = self.of(slot)
        return self._ask({k: ("call_slot", slot - self._bounds[k][0], name, arguments, named)})[k]

    def close(self) -> None:
        """End all processes; may be called again."""
        for connection in self._connections:
            with suppress(OSError):  # it has ended already
                connection.send(None)
        for process in self._processes:
            process.join(CLOSE_TIMEOUT_S)
            if process.is_alive():
                process.terminate()
                process.join()
        for connection in self._connections:
            connection.close()
        self._connections, self._processes = [], []

    def _ask(self, asked: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Send each worker a call and wait for all answers; the first error is raised after the last answer.

        If this is interrupted the workers are closed, since an unread answer would be taken for a later one.
        """
        if not self._connections:
            raise WorkerDied("the processes of these slots have ended: make the envs again")
        try:
            answers, failure = self._exchange(asked)
        except BaseException:
            self.close()
            raise
        if failure is not None:
            raise failure
        return answers

    def _exchange(self, asked: Mapping[int, tuple[Any, ...]]) -> tuple[dict[int, Any], Exception | None]:
        for k, call in asked.items():
            try:
                self._connections[k].send(call)
            except OSError as error:
                raise self._died(k) from error
        answers: dict[int, Any] = {}
        failure: Exception | None = None
        for k in asked:
            try:
                is_fine, answer = self._connections[k].recv()
            except (EOFError, OSError) as error:
                raise self._died(k) from error
            if is_fine:
                answers[k] = answer
            else:
                failure = failure or answer
        return answers, failure

    def _died(self, k: int) -> WorkerDied:
        self._processes[k].join(CLOSE_TIMEOUT_S)
        start, stop = self._bounds[k]
        return WorkerDied(
            f"the process of slots {start} to {stop - 1} ended (exit code {self._processes[k].exitcode}; "
            "-9: killed, usually out of memory): make the envs again, with fewer num_envs or num_workers"
        )


def check_num_workers(num_workers: object, num_slots: int) -> int:
    """Check the number of processes for this many slots; 0: no process, all slots live here."""
    if isinstance(num_workers, bool) or not isinstance(num_workers, (int, np.integer)) or num_workers < 0:
        raise InputError(f"num_workers={num_workers!r}: want a whole number of at least 0")
    if num_workers > num_slots:
        raise InputError(f"num_workers={num_workers} for {num_slots} slots: want at most {num_slots}")
    return int(num_workers)


def _work(connection: Connection, options: dict[str, Any], num_threads: int) -> None:
    """The loop of a worker, until it receives None or the connection closes."""
    import cv2
    import torch

    from inspatio_envs.vector_env import InspatioVectorEnv
    from inspatio_sim import kernels

    torch.set_num_threads(num_threads)
    cv2.setNumThreads(num_threads)
    kernels.set_num_threads(num_threads)
    first_slot = options.pop("first_slot")
    envs = InspatioVectorEnv(**options)
    envs.first_slot = first_slot
    try:
        while (asked := connection.recv()) is not None:
            name, *arguments = asked
            method: Callable[..., Any] = getattr(envs, name)
            try:
                answer = True, method(*arguments)
            except Exception as error:  # noqa: BLE001 - raised again where the call came from
                answer = False, error
            try:
                connection.send(answer)
            except (TypeError, AttributeError) as error:
                connection.send((False, InputError(f"{name}: its result cannot leave its process ({error})")))
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        pass  # the other side has gone
    finally:
        envs.close()
