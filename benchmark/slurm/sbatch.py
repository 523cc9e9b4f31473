"""Handing jobs to Slurm, by submitit: what they are called, what they ask for, and what surrounds them."""

from __future__ import annotations

import shlex
import sys
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from benchmark.slurm import scheduler
from benchmark.slurm.preflight import sbatch_options
from benchmark.slurm.profile import Profile, Request
from benchmark.slurm.scheduler import SilentError
from benchmark.slurm.submission import Submission, Turn
from benchmark.slurm.task import Task


class LimitError(SilentError):
    """Slurm takes no more jobs of this user until others are over."""


def array_of(
    folder: Path, name: str, request: Request, profile: Profile, snapshot: str, turn: Turn | None = None, jobs: int = 1,
    comment: str = "modalbench",
) -> Any:  # fmt: skip
    """Return submitit's executor for an array of jobs that run a snapshot.

    Args:
        folder: for submitit's files, one folder below it for each job.
        name: of the jobs.
        request: what each asks for.
        profile: the rest.
        snapshot: folder of the code.
        turn: when they may work.
        jobs: how many there will be.
        comment: of the jobs.
    """
    import submitit

    options, turn = sbatch_options(request), turn or Turn()
    if turn.after:
        options["dependency"] = ",".join(
            [f"afterany:{turn.after}", *filter(None, [str(options.get("dependency", ""))])]
        )
    executor = submitit.SlurmExecutor(folder / "%j", python=shlex.quote(sys.executable))
    executor.update_parameters(
        job_name=name,
        comment=comment,
        time=options.pop("time"),
        nodes=1,
        ntasks_per_node=1,
        signal_delay_s=profile.notice,
        array_parallelism=turn.throttle or jobs,
        stderr_to_stdout=True,
        wckey=None,
        additional_parameters=options,
        setup=[
            *profile.setup,
            f"export PYTHONPATH={shlex.quote(snapshot)}${{PYTHONPATH:+:$PYTHONPATH}}",
            "export PYTHONSAFEPATH=1",
            "export SLURM_EXPORT_ENV=ALL",  # a job that got no environment still hands on the lines above
        ],
    )
    return executor


def submit(submission: Submission) -> None:
    """Hand a submission to Slurm and note its id.

    Raises:
        LimitError: when Slurm has as many jobs as it takes; there is none of these then.
        SilentError: when Slurm does not take it for another reason, with its words.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    terms, tasks = submission.terms, range(len(submission.plan))
    executor = array_of(
        submission.path, terms.name, terms.request, terms.profile, terms.snapshot, submission.turn, len(tasks),
        submission.comment,
    )  # fmt: skip
    said = sbatch_options(terms.request).keys()
    try:
        with scheduler.clean_surroundings(said), redirect_stderr(StringIO()):  # submitit prints what it raises
            jobs = executor.submit_array([Task(str(submission.path), task) for task in tasks])
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        if limit := scheduler.LIMIT.search(str(error)):
            raise LimitError(f"Slurm takes no more jobs of yours at a time ({limit.group()})") from None
        raise SilentError(scheduler.last_line(str(error)) or type(error).__name__) from None
    submission.note_job(jobs[0].job_id.partition("_")[0])
