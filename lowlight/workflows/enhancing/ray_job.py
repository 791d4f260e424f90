"""A folder on Ray: one worker for each GPU or CPU slot, photos handed out by path, rows coming back.

Workers read and write the files themselves, so every machine must see the same folders under the same names. A photo
that fails becomes a row, as in a local run; what a lost worker had in hand is done by another. Needs the extra `ray`.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lowlight.core.errors import LowlightError, UsageError
from lowlight.workflows.enhancing.enhance import OnMeter, OnRow, common_ratio, enhance_files, enhance_jobs
from lowlight.workflows.enhancing.enhancer import Enhancer
from lowlight.workflows.enhancing.inputs import Photo
from lowlight.workflows.enhancing.options import EnhanceOptions
from lowlight.workflows.enhancing.planning import own_jobs, plan_jobs, with_weights
from lowlight.workflows.enhancing.ray_cluster import connect, import_ray
from lowlight.workflows.enhancing.rows import Job, Row, failed_row
from lowlight.workflows.enhancing.scenes import Scene

logger = logging.getLogger(__name__)

MOST_LOSSES = 3  # workers that one photo may take with it before it counts as failed
PHOTOS_PER_TASK = 16  # at most, where there are many: within a task, reading and writing overlap with the network
TASKS_PER_WORKER = 4  # at least, where there are that many photos: so that all workers end at about the same time
WAIT_S = 0.5  # between looks at whether the run is to stop
GIVE_UP_S = 60.0  # for workers to write what is past the network when the run is to stop
NOTICE = "notice"  # the group of calls that a worker hears while it is at work
SLOW_START_S = 30.0  # after which a worker that has not begun is spoken of


class PhotoWorker:
    """What a Ray actor runs: one loaded network, and photos one task after another.

    An error of construction is kept and told by `problem`, since an actor that fails to start says so only to logs.
    """

    def __init__(self, options: EnhanceOptions, folder: str, threads: int | None) -> None:
        import torch

        from lowlight.core.compute import keep_freed_memory

        keep_freed_memory()
        if threads:
            torch.set_num_threads(threads)
        self._enhancer: Enhancer | None = None
        self._problem: str | None = None
        self._stopped = threading.Event()
        try:
            os.chdir(folder)  # names are those of the process that asked
            self._enhancer = Enhancer(options)
        except LowlightError as error:
            self._problem = str(error)
        except OSError as error:
            self._problem = f"a worker cannot enter {folder} ({error.strerror}); all machines must see the same folders"

    def problem(self) -> str | None:
        """Why this worker cannot work, None where it can."""
        return self._problem

    def stops(self, jobs: list[Job]) -> list[float | None]:
        """The automatic ratio of each photo in stops; None for one that cannot be read."""
        assert self._enhancer is not None
        return [self._enhancer.stops(job) for job in jobs if not self._stopped.is_set()]

    def enhance(self, jobs: list[Job], same_ratio: float | None, overwrite: bool) -> list[Row]:
        """Enhance some photos and give their rows; once it is to stop, those of the first ones, which are finished."""
        assert self._enhancer is not None
        return enhance_jobs(self._enhancer, jobs, same_ratio, overwrite=overwrite, stop=self._stopped.is_set)

    def stop(self) -> None:
        """End the call at work as a run without Ray ends: what is past the network is written, the rest is not."""
        self._stopped.set()


@dataclass(frozen=True)
class _Task:
    """Photos of one call, by their places in the job, and how many workers were lost with them."""

    places: tuple[int, ...]
    losses: int = 0


def enhance_on_ray(
    photos: Sequence[Photo | Scene],
    options: EnhanceOptions,
    *,
    address: str = "auto",
    workers: int | None = None,
    cpus_per_worker: int = 1,
    on_row: OnRow | None = None,
    on_meter: OnMeter | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Row]:
    """Enhance photos on a Ray cluster; rows and files are those of `enhance_files`.

    Files are the same byte for byte where the network computes with the same number of threads, or in bf16. In fp32
    sums may come out one last bit apart with another number (`cpus_per_worker`).

    `address` is a cluster's, `local` for one on this machine, or `auto`: the cluster that is running, else a local
    one. `workers` is at most as many as there are GPUs, or CPU slots of `cpus_per_worker` where there is no GPU or
    `options.device` is cpu. `on_row` gets rows in the order in which photos are finished; the rows returned are in
    the order of `photos`, without those that a `stop` left undone. Raises `UsageError` where Ray is missing, the
    address leads nowhere, or no photo could be enhanced with these options.
    """
    if options.contact_sheet:
        raise UsageError(
            "contact sheets are not made on a cluster; leave --contact-sheet out, and afterwards run the same command "
            "with it and without --ray: finished photos are skipped and only the sheets are made"
        )
    ray = import_ray()
    if options.dry_run:
        return enhance_files(photos, options, on_row=on_row, on_meter=on_meter, stop=stop)
    options = with_weights(options, photos)
    whole = plan_jobs(photos, options)
    jobs = own_jobs(whole, options.shard)
    if not jobs or stop():
        return []
    ours = connect(ray, address)
    try:
        pool = _Pool(ray, options, workers, cpus_per_worker, len(jobs), stop)
        try:
            same_ratio = None
            if options.ratio == "same":
                same_ratio = _common_ratio(pool, whole, on_meter or (lambda done, total: None))
            return _work(pool, jobs, options, same_ratio, on_row or (lambda row: None))
        finally:
            pool.close()
    finally:
        if ours:
            ray.shutdown()


def _common_ratio(pool: "_Pool", jobs: list[Job], on_meter: OnMeter) -> float | None:
    known: list[float | None] = []
    metered = 0
    on_meter(0, len(jobs))
    for places, stops in pool.run("stops", _tasks(len(jobs), pool.size), lambda task: (_some(jobs, task),)):
        metered += len(places)
        known += stops or ()
        on_meter(metered, len(jobs))
    return common_ratio(known)


def _work(
    pool: "_Pool", jobs: list[Job], options: EnhanceOptions, same_ratio: float | None, on_row: OnRow
) -> list[Row]:
    existed = {
        place
        for place, job in enumerate(jobs)
        if not options.overwrite and all(map(os.path.exists, (job.output, *job.beside)))
    }

    def arguments(task: _Task) -> tuple[list[Job], float | None, bool]:
        # What a lost worker has written is written again, so that its row says how; what was there before is not.
        return _some(jobs, task), same_ratio, options.overwrite or (task.losses > 0 and not existed & set(task.places))

    rows: dict[int, Row] = {}
    for places, found in pool.run("enhance", _tasks(len(jobs), pool.size), arguments):
        lost = LowlightError(
            f"the worker was lost {MOST_LOSSES} times over {jobs[places[0]].photo.path.name}, perhaps for want of "
            "memory; try the photo alone, without --ray"
        )
        if found is None:
            found = [failed_row(jobs[place], lost) for place in places]
        for place, row in zip(places, found, strict=False):  # a worker that was stopped has done the first ones
            rows[place] = row
            on_row(row)
    return [rows[place] for place in sorted(rows)]


def _some(jobs: list[Job], task: _Task) -> list[Job]:
    return [jobs[place] for place in task.places]


def _tasks(photos: int, workers: int) -> deque[_Task]:
    each = max(1, min(PHOTOS_PER_TASK, photos // (workers * TASKS_PER_WORKER)))
    return deque(_Task(tuple(range(first, min(first + each, photos)))) for first in range(0, photos, each))


class _Pool:
    """Workers with one task each; a worker that is lost is replaced, its task handed to another photo by photo."""

    def __init__(
        self,
        ray: Any,
        options: EnhanceOptions,
        workers: int | None,
        cpus_per_worker: int,
        photos: int,
        stop: Callable[[], bool],
    ) -> None:
        self._ray, self._stop = ray, stop
        resources = ray.cluster_resources()
        gpus = 0 if options.device == "cpu" else int(resources.get("GPU", 0))
        slots = gpus or int(resources.get("CPU", 1)) // cpus_per_worker
        if slots < 1:
            raise UsageError(
                f"the cluster has {int(resources.get('CPU', 0))} CPUs and no slot of {cpus_per_worker}; "
                "ask for fewer CPUs for each worker"
            )
        self.size = max(1, min(workers or slots, slots, photos))
        wants: dict[str, Any] = {"num_gpus": 1} if gpus else {"num_cpus": cpus_per_worker}
        self._actor = ray.remote(max_restarts=0, concurrency_groups={NOTICE: 1}, **wants)(PhotoWorker)
        self._arguments = (options, os.getcwd(), None if gpus else cpus_per_worker)
        named = ("RayActorError", "OutOfMemoryError", "NodeDiedError", "LocalRayletDiedError", "WorkerCrashedError")
        self._lost = tuple(getattr(ray.exceptions, name) for name in named if hasattr(ray.exceptions, name))
        self._workers = [self._new() for _ in range(self.size)]
        self._check()

    def run(
        self, method: str, tasks: deque[_Task], arguments: Callable[[_Task], tuple[Any, ...]]
    ) -> Iterable[tuple[tuple[int, ...], list[Any] | None]]:
        """Do tasks and yield the places of each with its answer as it comes; None where it was given up.

        When the run is to stop, the answers of the tasks in hand are about their first places only.
        """
        idle = list(self._workers)
        busy: dict[Any, tuple[Any, _Task]] = {}
        while (tasks or busy) and not self._stop():
            while idle and tasks:
                worker, task = idle.pop(), tasks.popleft()
                busy[getattr(worker, method).remote(*arguments(task))] = worker, task
            ready, _ = self._ray.wait(list(busy), num_returns=1, timeout=WAIT_S)
            for answer in ready:
                worker, task = busy.pop(answer)
                try:
                    found = self._ray.get(answer)
                    idle.append(worker)
                except self._lost as error:
                    logger.warning("a worker was lost (%s); another takes its place", type(error).__name__)
                    idle.append(self._replace(worker))
                    if task.losses + 1 < MOST_LOSSES:
                        tasks.extendleft(_Task((place,), task.losses + 1) for place in reversed(task.places))
                        continue
                    found = None
                yield task.places, found
        yield from self._last(busy)

    def close(self) -> None:
        """Let the workers go; what they were writing has not appeared under its name."""
        for worker in self._workers:
            self._ray.kill(worker)

    def _last(self, busy: dict[Any, tuple[Any, _Task]]) -> Iterable[tuple[tuple[int, ...], list[Any]]]:
        """Tell workers to stop and yield what they have finished, so that no picture goes without its row."""
        if not busy:
            return
        for worker, _ in busy.values():
            worker.stop.options(concurrency_group=NOTICE).remote()
        answers, _ = self._ray.wait(list(busy), num_returns=len(busy), timeout=GIVE_UP_S)
        for answer in answers:
            with suppress(*self._lost):
                yield busy[answer][1].places, self._ray.get(answer)

    def _new(self) -> Any:
        return self._actor.remote(*self._arguments)

    def _replace(self, worker: Any) -> Any:
        new = self._new()
        self._workers = [new if known is worker else known for known in self._workers]
        return new

    def _check(self) -> None:
        """Raise what a worker says about options it cannot work with; one that is lost is replaced later."""
        asked = [worker.problem.remote() for worker in self._workers]
        began_s, told = time.monotonic(), False
        while asked and not self._stop():
            ready, asked = self._ray.wait(asked, num_returns=1, timeout=WAIT_S)
            if not told and time.monotonic() - began_s > SLOW_START_S:
                logger.warning("waiting for free slots of the cluster")
                told = True
            for answer in ready:
                with suppress(*self._lost):
                    if problem := self._ray.get(answer):
                        self.close()
                        raise UsageError(problem)
