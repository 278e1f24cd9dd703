"""Sweeps: a method over settings and seeds, in a table that grows row by row and goes on where it stopped.

    sweeps.sweep("factorvae", {"gamma": [10, 20, 40]}, seeds=10, preset="quick", jobs=2)

Every member is an ordinary run, kept under home(). The table has a row per member: what was asked, what was measured,
what it took. Only the process that was called writes it. Called again, a sweep trains what is missing and tries again
what failed; a training that was cut off goes on from its checkpoint.

On the CPU each member takes one thread, so that no number depends on how many are trained at the same time.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pandas as pd

from disentkit import checkpoints, machine, runs, training, workbench
from disentkit import data as datasets
from disentkit.data.base import Data
from disentkit.errors import UserError, one_of, whole
from disentkit.members import FULL, Member, Task, reason, short, train_members
from disentkit.methods import learner_class, settings_class
from disentkit.places import writable_home
from disentkit.probes import READY, can_score, chosen
from disentkit.tables import FAILED, Table, check_writable

BACKENDS = ("loky", "dask")
ANSWER = 20  # seconds in which a cluster has to answer


def sweep(
    method: str,
    grid: dict[str, Sequence],
    *,
    seeds: int | Sequence[int] = 1,
    data: str | Data = "dsprites",
    preset: str = "quick",
    out: str | Path | None = None,
    backend: str = "loky",
    jobs: int | None = None,
    scheduler: str | None = None,
    together: int = 1,
    measures: Sequence | None = None,
    probes: Sequence = (),
    probe_every: int | None = None,
    device: str = "auto",
    precision: str | None = None,
    data_options: dict | None = None,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Train and measure every combination of the grid's values from every seed; returns their rows, seeds innermost.

    grid        {setting: its values}; the other settings are the preset's
    seeds       so many, counted from 0, or the seeds themselves
    out         the table, by default home()/sweeps/METHOD-DATA-PRESET.csv; several methods may share one
    backend     "loky": processes of this machine. "dask": a cluster that runs already, at the address `scheduler`; its
                workers need disentkit, and keep the runs under the path of this home(), best on a disk that all see
    jobs        members at the same time with loky; by default as many as cores are idle, and 1 on a GPU
    together    so many seeds of a setting side by side in one process, see `workbench.train_together`
    measures    names of `disentkit.probes.READY`, functions (model, data) -> {name: number}, and "full", which is
                `workbench.score`; by default "full" where the data have the factors for it
    probes      measures taken every `probe_every` steps of the training, into the history of each run

    Columns: method, data, data_version, seed, every setting; preset, the measures, recon and kl (means over the last
    interval of the history, where the method has them), seconds (of training), threads, precision, device, run,
    disentkit, torch; failed (why; empty for members that are done).

    A precision that is asked for by name is part of what a row is known by; the device is not.

    Raises UserError for whatever in the arguments cannot be, before anything is trained; KeyboardInterrupt after
    Ctrl-C, when the table holds what was finished.
    """
    one_of("backend", backend, BACKENDS)
    if (scheduler is None) == (backend == "dask"):
        raise UserError("the backend dask needs the address of its scheduler, for example tcp://node1:8786; loky none")
    whole("together", together)
    whole("jobs", jobs or 1)
    target = machine.pick_device(device)
    dtype = machine.pick_precision(precision or "auto", target)
    fixed = {} if precision in (None, "auto") else {"precision": str(dtype).removeprefix("torch.")}
    members, loaded = _members(method, grid, _different(seeds), data, preset, data_options, fixed)
    measures = _checked(measures, probes, probe_every, loaded)
    jobs = jobs or (machine.idle_cores() if target.type == "cpu" else 1)
    options = {
        "device": device, "precision": precision, "data_options": data_options, "threads": 1, "probes": tuple(probes),
        "probe_every": probe_every, "bar": backend == "loky" and jobs == 1,
    }  # fmt: skip
    task = Task(method, data, preset, options, measures, str(writable_home()), os.getpid())
    out = Path(out or usual_place(method, loaded.name, preset))
    check_writable(out)
    with _alone(out):
        table = Table(out)
        left = [member for member in members if not table.has(member.asked)]
        done = len(members) - len(left)
        if done:
            say(f"{done} of {len(members)} are in {out} already")
        chunks = _chunks(left, together)
        found = _on_cluster(chunks, task, scheduler) if backend == "dask" and left else _here(chunks, task, jobs)
        with closing(found):
            for member, row in found:
                if row is None:
                    raise KeyboardInterrupt
                table.add(member.asked, row)
                done += 1
                say(f"{done} of {len(members)}: {member.words}: {_said(row)}")
        return table.frame([member.asked for member in members])


def usual_place(method: str, data: str, preset: str) -> Path:
    """Where the table of a sweep goes."""
    return runs.home() / "sweeps" / f"{method}-{data}-{preset}.csv"


def means(method: str, rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Rows of a sweep, a line for each combination of the settings `by`: how many seeds, and each measure in words.

    The words are "mean (standard deviation)" over the seeds that did not fail.
    """
    settings = [f.name for f in fields(settings_class(method))]
    done = rows[rows[FAILED].isna()]
    numbers = done.select_dtypes("number").columns.difference(["seed", "threads", FAILED, *settings], sort=False)
    lines, groups = [], done.groupby(list(by), sort=False) if by else [((), done)]
    for values, group in groups if len(done) else []:
        line = dict(zip(by, map(short, values))) | {"seeds": len(group)}
        for name in numbers:
            spread = f" ({round(group[name].std(), 9):.2g})" if len(group) > 1 else ""
            line[name] = f"{group[name].mean():.3g}{spread}"
        lines.append(line)
    return pd.DataFrame(lines)


@contextmanager
def _alone(out: Path):
    """Keep other sweeps out of the table."""
    with ExitStack() as stack:
        try:
            stack.enter_context(checkpoints.alone(out.absolute().with_name("." + out.name)))
        except UserError:
            raise UserError(f"another sweep is writing {out} at this moment; wait for it, or name another") from None
        yield


# ---- what is asked, all of it checked before anything is trained


def _different(seeds: int | Sequence[int]) -> list[int]:
    if not isinstance(seeds, Sequence | np.ndarray):
        seeds = range(whole("seeds", seeds))
    seeds = list(seeds)
    for seed in seeds:
        whole("seed", seed, 0, training.MOST_SEED)
    if len(set(seeds)) < len(seeds) or not seeds:
        raise UserError(f"seeds must be one or more, and different: not {', '.join(map(str, seeds)) or 'none'}")
    return seeds


def _members(method, grid, seeds, data, preset, data_options, fixed: dict) -> tuple[list[Member], Data]:
    """Every member, settings before seeds, and the data of the first. fixed: what rows are known by besides."""
    kinds = {setting.name: setting.type for setting in fields(workbench.settings_of(method, data, preset))}
    values = {}
    for name, wanted in grid.items():
        one_of(f"setting of {method}", name, kinds)
        if isinstance(wanted, str) or not isinstance(wanted, Sequence) or not wanted:
            raise UserError(f"{name} needs a list of values, one or more, not {wanted!r}")
        for value in wanted:
            workbench.settings_of(method, data, preset, changes={name: value})
        plain = {"float": float, "int": int}.get(kinds[name], lambda value: value)  # numpy's own no card keeps
        values[name] = [plain(value) for value in wanted]
        if twice := [v for i, v in enumerate(values[name]) if v in values[name][:i]]:
            raise UserError(f"{name} has the value {short(twice[0])} twice; give every value once")
    members, loaded = [], {}
    for combination in itertools.product(*values.values()):
        changes = dict(zip(values, combination))
        settings = workbench.settings_of(method, data, preset, changes=changes)
        if settings.size not in loaded:
            options = {"size": settings.size, **(data_options or {})}
            found = datasets.load(data, **options) if isinstance(data, str) else data
            loaded[settings.size] = found, hashlib.sha256(found.fingerprint().encode()).hexdigest()[:8]
        found, version = loaded[settings.size]
        with machine.seeded(0):
            learner_class(method)(settings, found.spec)  # what only the method itself can refuse
        asked = {"method": method, "data": found.name, "data_version": version} | fixed
        members += [Member(asked | {"seed": seed} | asdict(settings), changes) for seed in seeds]
    return members, next(iter(loaded.values()))[0]


def _checked(measures, probes, probe_every, data: Data) -> tuple:
    """The measures, by default those that the data allow."""
    if isinstance(measures, str) or isinstance(probes, str):
        raise UserError("measures and probes are lists of names or functions")
    if measures is None:
        measures = [FULL] if can_score(data) else []
    for name in measures:
        if not callable(name):
            one_of("measure", name, [FULL, *READY])
    if FULL in measures and "scores" in measures:
        raise UserError(f"'{FULL}' and 'scores' fill the same columns; take one of them")
    chosen(["scores" if name == FULL else name for name in measures], data)
    chosen(probes, data)
    if probe_every is not None and not probes:
        raise UserError(f"probe_every={probe_every} measures nothing: name the probes, for example probes=['scores']")
    whole("probe_every", 1 if probe_every is None else probe_every)
    return tuple(measures)


def _chunks(members: list[Member], together: int) -> list[list[Member]]:
    """Members that one process trains side by side: seeds of one setting."""
    found = []
    for _, group in itertools.groupby(members, key=lambda member: member.changes):
        group = list(group)
        found += [group[i : i + together] for i in range(0, len(group), together)]
    return found


# ---- engines


def _here(chunks: list[list[Member]], task: Task, jobs: int) -> Iterator[tuple]:
    """(member, row) as they come in from processes of this machine; with one job from this process itself."""
    import joblib

    def work(chunks, jobs):
        with joblib.parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1):
            parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="all")
            with closing(parallel(joblib.delayed(train_members)(chunk, task) for chunk in chunks)) as found:
                for rows in found:
                    yield from rows

    seen = []
    try:
        for member, row in work(chunks, jobs):
            seen.append(member)
            yield member, row
    except BrokenProcessPool:  # one process died and took the others along: one at a time shows whose it was
        for chunk in [chunk for chunk in chunks if chunk[0] not in seen]:
            try:
                yield from work([chunk], 2)  # 2, for with 1 it would be this process
            except BrokenProcessPool:
                yield from _lost(chunk, task, "its process was killed, perhaps for want of memory")


def _on_cluster(chunks: list[list[Member]], task: Task, scheduler: str) -> Iterator[tuple]:
    """(member, row) as they come in from a dask cluster.

    By its own client: joblib's dask backend (1.6) waits for ever for a member whose worker died.
    """
    with _cluster(scheduler) as client:
        from distributed import as_completed

        waiting = {client.submit(train_members, chunk, task, pure=False): chunk for chunk in chunks}
        for future in as_completed(waiting, loop=client.loop):
            if future.status == "finished":
                yield from future.result()
            else:
                why = reason(future.exception()) if future.status == "error" else f"the cluster: {future.status}"
                yield from _lost(waiting[future], task, why)


def _lost(chunk: list[Member], task: Task, why: str) -> list[tuple]:
    return [(member, {"preset": task.preset, FAILED: why}) for member in chunk]


@contextmanager
def _cluster(scheduler: str):
    """A client of the cluster; raises UserError where it does not answer, has no worker, or none that knows the kit."""
    try:
        from distributed import Client
    except ImportError:
        raise UserError("the backend dask needs the package: pip install 'disentkit[dask]'") from None
    if not re.search(r":\d+/?$", scheduler):
        raise UserError(f"'{scheduler}' is no address of a dask scheduler; one looks like tcp://node1:8786")
    try:
        client = Client(scheduler, timeout=ANSWER, set_as_default=False)
    except (OSError, ValueError, TypeError) as e:
        why = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise UserError(f"no dask scheduler answers at {scheduler} ({why})") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=ANSWER)
            client.run(exec, "import disentkit.members")
        except TimeoutError:
            raise UserError(f"the scheduler {scheduler} has no worker; start some: dask worker {scheduler}") from None
        except ImportError as e:
            raise UserError(f"a worker of {scheduler} cannot import the kit ({e}); install disentkit there") from None
        yield client


# ---- words


def _said(row: dict) -> str:
    if row[FAILED]:
        return f"failed: {row[FAILED]}"
    shown = [f"{k} {row[k]:.3g}" for k in ("factorvae", "betavae", "mig", "recon", "kl") if k in row]
    return ", ".join([*shown, training.duration(row["seconds"])])
