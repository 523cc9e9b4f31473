"""What is concluded from submissions, queue and run folders; Slurm's answers are made up, so no cluster is needed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmark.errors import UserError
from benchmark.launch.launch_options import LaunchOptions
from benchmark.plan.sweep import Sweep, plan
from benchmark.records import RunFolder, RunView, State, Status
from benchmark.slurm import preflight, scheduler
from benchmark.slurm.board import give_up, note_end, read_board
from benchmark.slurm.cancel import cancel_runs
from benchmark.slurm.executor import SlurmExecutor
from benchmark.slurm.overview import active_jobs, overview
from benchmark.slurm.preflight import check_request, check_room, check_shared
from benchmark.slurm.profile import Profile, Request
from benchmark.slurm.scheduler import Job, Partition, SilentError
from benchmark.slurm.submission import Registry, assignments
from benchmark.slurm.task import job_number, share_out


@pytest.fixture
def slurm(monkeypatch):
    """Slurm as {command: what it prints}, with what it was asked under `asked`; a command without answer is silent."""
    answers = {"squeue": "", "asked": []}

    def ask(*command, stdin=None, said=()):
        answers["asked"].append(command)
        if command[0] not in answers:
            raise SilentError(f"{command[0]}: not on PATH")
        return answers[command[0]]

    for module in (scheduler, preflight):
        monkeypatch.setattr(module, "ask", ask)
    return answers


def queued(*jobs):
    """Return what squeue prints of (number, state) or (number, state, comment)."""
    return "".join(f"{number}|{state}|node1||{''.join(comment)}|Priority\n" for number, state, *comment in jobs)


@pytest.fixture
def specs(blobs):
    return plan(Sweep(["concat"], [blobs], [0, 1, 2], recipe={"epochs": 1, "batch_size": 16})).runs


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path)


@pytest.fixture
def submit(registry, specs, tmp_path):
    """Write down a submission of an array of two jobs, of two runs and of one; `job` is the id it was given."""

    def add(job="7", **profile):
        profile = {"request": Request(), "profile": Profile(**profile)}
        terms = {"options": LaunchOptions(out=tmp_path), "cluster": "a", "snapshot": "", "created": 1.0, **profile}
        pairs = [(str(spec.folder(tmp_path).relative_to(tmp_path)), spec) for spec in specs]
        submission = registry.add(terms, [pairs[:2], pairs[2:]])
        if job:
            submission.note_job(job)
        return submission

    return add


@pytest.fixture
def folders(specs, tmp_path):
    return [RunFolder(spec.folder(tmp_path)) for spec in specs]


def states(views):
    return [view.status.state for _, view in sorted(views.items(), key=lambda item: item[1].seed)]


# --- submissions ---------------------------------------------------------------------------------------------------


def test_a_submission_is_read_as_it_was_written_down(submit, registry, specs):
    written = submit()
    (found,) = registry.open()
    assert found == written
    assert [[run.seed for run in task] for task in found.plan] == [[0, 1], [2]]
    assert found.specs_of(0) == specs[:2]
    assert [found.number_of(task) for task in (0, 1)] == ["7_0", "7_1"]
    assert found.terms.options.out == registry.out
    found.close("over")
    assert found.is_closed
    assert registry.open() == []


def test_a_run_belongs_to_its_job_that_is_not_over_else_to_the_latest(submit, registry, slurm):
    submit("7")
    submit("8")
    queue = {"7_0": Job("RUNNING"), "7_1": Job("FAILED"), "8_0": Job("PENDING"), "8_1": Job("TIMEOUT")}
    found = assignments(sorted(registry.open(), key=lambda submission: submission.job), queue)
    assert [one.number for one in found.values()] == ["7_0", "7_0", "8_1"]
    assert [(one.task, one.place, one.spec().seed) for one in found.values()] == [(0, 0, 0), (0, 1, 1), (1, 0, 2)]
    assert active_jobs(found) == {"7_0": list(found)[:2]}


def test_a_job_whose_id_was_lost_is_found_by_its_comment_and_one_that_never_began_is_closed(submit, registry, slurm):
    lost, never = submit(""), submit("")
    slurm["squeue"] = queued(("9_0", "RUNNING", lost.comment), ("9_1", "PENDING", lost.comment))
    board = read_board(registry)
    assert {one.number for one in board.values()} == {"9_0", "9_1"}
    assert lost.job == "9"
    assert never.is_closed
    assert not lost.is_closed


def cut(path):
    path.write_bytes(path.read_bytes()[:-50])


def scramble(path):
    path.write_bytes(b"\xff\x00\n" * 40)


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


def empty(path):
    path.write_bytes(b"")


def other_kinds(path):
    path.write_text('[[{"folder": 1}]]\n[3]\n')


def nest(path):
    path.write_text("[" * 100_000)


@pytest.mark.parametrize("name", ["plan.jsonl", "terms.json"])
@pytest.mark.parametrize("damage", [cut, scramble, replace_by_folder, empty, other_kinds, nest])
def test_a_damaged_submission_is_one_line_and_hides_no_other(submit, registry, slurm, tmp_path, specs, damage, name):
    sound, damaged = submit("7"), submit("8")
    damage(damaged.path / name)
    slurm |= {"squeue": queued(("7_0", "PENDING"), ("7_1", "RUNNING"), ("8_0", "PENDING")), "scancel": ""}
    views, remark = overview(tmp_path, {})
    assert states(views) == [State.QUEUED] * 3
    assert remark.startswith("damaged: .jobs/")
    assert f"{damaged.path.name}/{name}: " in remark
    assert "\n" not in remark
    assert len(remark) < 250
    told = []
    engine = SlurmExecutor(LaunchOptions(on="slurm", out=tmp_path), told.append)
    assert remark in engine.cancel(list(views.values())[:0])
    assert damaged.is_closed, "its jobs that start later do nothing"
    assert not sound.is_closed
    (damaged.path / "closed").unlink()
    assert engine._look({str(spec.folder(tmp_path).relative_to(tmp_path)): spec for spec in specs})
    assert told == [remark]
    assert Registry(tmp_path).all() == [sound]


def test_a_damaged_submission_is_shown_where_there_are_no_runs_yet(submit, bench_here, tmp_path):
    cut(submit().path / "plan.jsonl")
    said = bench_here("status", "--out", tmp_path).said
    assert "No runs in" in said
    assert said.count("damaged: .jobs/") == 1


@pytest.mark.parametrize("damage", [scramble, empty])
def test_an_id_that_cannot_be_read_is_found_by_the_comment(submit, registry, slurm, damage):
    submission = submit("7")
    damage(submission.path / "job")
    slurm["squeue"] = queued(("7_0", "RUNNING", submission.comment), ("7_1", "PENDING", submission.comment))
    assert {one.number for one in read_board(registry).values()} == {"7_0", "7_1"}
    assert submission.job == "7"


# --- what is shown -------------------------------------------------------------------------------------------------


def test_runs_that_only_the_queue_knows_are_shown_as_it_has_them(submit, slurm, tmp_path):
    submit()
    slurm["squeue"] = queued(("7_0", "PENDING"), ("7_1", "RUNNING"))
    views, remark = overview(tmp_path, {})
    assert remark == ""
    assert states(views) == [State.QUEUED] * 3
    causes = [view.status.cause for _, view in sorted(views.items(), key=lambda item: item[1].seed)]
    assert causes == ["waits: Priority", "waits: Priority", "its job has begun"]


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (Status(State.RUNNING, job="7_0"), State.INTERRUPTED),
        (Status(State.PLANNED), State.INTERRUPTED),
        (Status(State.FAILED, job="7_0"), State.FAILED),
        (Status(State.DONE), State.DONE),
        (Status(State.RUNNING, job="another"), State.RUNNING),
    ],
)
def test_a_run_whose_job_is_over_is_interrupted_unless_it_is_over_itself(
    submit, slurm, folders, tmp_path, status, shown
):
    submit()
    slurm["squeue"] = queued(("7_0", "TIMEOUT"), ("7_1", "RUNNING"))
    name = str(folders[0].path.relative_to(tmp_path))
    views, _ = overview(tmp_path, {name: RunView(folders[0], status=status)})
    found = views[name].status
    assert found.state is shown
    assert ("out of time on node1" in found.cause) == (shown is State.INTERRUPTED)


def test_a_silent_slurm_proves_nothing(submit, slurm, folders, tmp_path):
    submit()
    del slurm["squeue"]
    known = {"a": RunView(folders[0], status=Status(State.RUNNING))}
    views, remark = overview(tmp_path, known)
    assert views == known
    assert "Slurm does not answer (squeue: not on PATH)" in remark
    assert overview(tmp_path / "elsewhere", known) == (known, ""), "nothing was submitted, so nobody is asked"


# --- how jobs end --------------------------------------------------------------------------------------------------


def test_a_submission_is_closed_when_every_job_is_over_and_said_so(submit, registry, slurm, folders):
    submission = submit()
    slurm["squeue"] = queued(("7_0", "FAILED"), ("7_1", "RUNNING"))
    read_board(registry)
    assert not submission.is_closed
    slurm["squeue"] = queued(("7_0", "FAILED"), ("7_1", "FAILED"))
    read_board(registry)
    assert not submission.is_closed, "a job without output: its node may not see the folder"
    for number in ("7_0", "7_1"):
        log = submission.log_of(number)
        log.parent.mkdir()
        log.write_text("one\n\nsrun: error: no python\n")
    read_board(registry)
    assert submission.is_closed
    for folder in folders:
        status = folder.read_status()
        assert (status.state, status.stalled) == (State.INTERRUPTED, 1)
        assert status.cause == "before the run started, its job failed on node1; srun: error: no python"


def test_a_job_that_slurm_may_put_back_is_not_believed_to_be_over(submit, registry, slurm):
    submission = submit()
    for number in ("7_0", "7_1"):
        log = submission.log_of(number)
        log.parent.mkdir()
        log.touch()
    slurm["squeue"] = queued(("7_0", "PREEMPTED"), ("7_1", "PREEMPTED"))
    read_board(registry)
    assert not submission.is_closed


@pytest.mark.parametrize(
    ("state", "before", "after", "stalled"),
    [
        ("TIMEOUT", Status(State.RUNNING, job="7_0", stalled=1), State.INTERRUPTED, 1),
        ("TIMEOUT", Status(State.RUNNING, job="6_0", stalled=1), State.INTERRUPTED, 2),
        ("TIMEOUT", Status(State.INTERRUPTED, job="7_0"), State.INTERRUPTED, 0),
        ("TIMEOUT", Status(State.DONE, job="7_0"), State.DONE, 0),
        ("CANCELLED", Status(State.RUNNING, job="7_0"), State.CANCELLED, 0),
    ],
)
def test_how_a_job_ended_is_written_down_for_its_run(submit, registry, slurm, folders, state, before, after, stalled):
    submit()
    slurm["squeue"] = queued(("7_0", state), ("7_1", "RUNNING"))
    board = read_board(registry)
    assigned = board[str(folders[0].path.relative_to(registry.out))]
    status = note_end(folders[0], before, assigned)
    assert (status.state, status.stalled) == (after, stalled)


def test_a_run_that_is_given_up_says_how_often_and_why(folders):
    give_up(folders[0], Status(State.INTERRUPTED, stalled=3, cause="out of time"))
    found = folders[0].read_status()
    assert found.state is State.FAILED
    assert found.cause == "3 attempts in a row finished no epoch; the last: out of time"


def test_only_jobs_that_wait_and_have_nothing_else_to_do_leave_the_queue(submit, slurm, folders, tmp_path):
    submit()
    slurm |= {"squeue": queued(("7_0", "PENDING"), ("7_1", "PENDING")), "scancel": ""}
    views = [RunView(folder, status=folder.read_status()) for folder in folders]
    cancel_runs(tmp_path, [views[0], views[2]])
    assert [command for command in slurm["asked"] if command[0] == "scancel"] == [("scancel", "7_1")]
    assert [folder.read_status().state for folder in folders] == [State.PLANNED] * 3, "7_1 has not left the queue yet"
    cancel_runs(tmp_path / "elsewhere", views)


# --- on a node, and before anything is submitted -------------------------------------------------------------------


def test_a_job_knows_its_number(monkeypatch):
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    assert job_number() == ""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert job_number() == "12"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "10")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    assert job_number() == "10_0"


def test_the_cores_of_a_job_are_shared_by_its_runs(submit):
    terms = submit(per_gpu=2).terms
    request, free = Request(gpus=2, cpus=10), replace(terms.options, threads=0)
    terms = terms.model_copy(update={"request": request, "options": free})
    found = share_out(terms)
    assert (found.jobs, found.device, found.num_gpus, found.threads) == (4, "cuda", 2, 2)
    asked = terms.model_copy(update={"options": replace(terms.options, threads=3, device="cpu")})
    assert (share_out(asked).device, share_out(asked).threads) == ("cpu", 3)


CLUSTER = {"short": Partition(60, is_default=True), "long": Partition(None, is_default=False)}


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(time="61m"), "at most 60 minutes in partition short"),
        (Request(time="61m", partition="long,short"), "at most 60 minutes in partition short"),
        (Request(partition="lnog"), "long"),
    ],
)
def test_what_the_cluster_would_refuse_is_refused_before(slurm, request_, words):
    slurm["sbatch"] = ""
    with pytest.raises(UserError, match=words):
        check_request(request_, CLUSTER)


def test_sbatch_is_asked_whether_it_takes_a_request(slurm):
    slurm["sbatch"] = ""
    check_request(Request(time="60m", gpus=0, sbatch={"exclusive": True}), CLUSTER)
    (asked,) = slurm["asked"]
    assert {"--time=60", "--cpus-per-task=4", "--exclusive"} <= set(asked)
    del slurm["sbatch"]
    with pytest.raises(UserError, match="a request that the cluster takes"):
        check_request(Request(time="60m"), CLUSTER)


def test_an_output_folder_must_be_shared_and_have_room(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="without a colon"):
        check_shared(tmp_path / "a:b")
    monkeypatch.setattr(preflight, "file_system", lambda path: "tmpfs")
    with pytest.raises(UserError, match="tmpfs, this machine only"):
        check_shared(tmp_path)
    check_room(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="room for files"):
        check_room(tmp_path / "file" / "below")
