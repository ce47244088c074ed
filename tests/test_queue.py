"""What the SLURM launcher makes of SLURM's answers, and of none: commands that print captured text stand in for it."""

import dataclasses
import errno
import fcntl
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.test_pack import cluster, script
from tlprotocols import records
from tlprotocols.config.identity import base_of, factors
from tlprotocols.config.schema import Config
from tlprotocols.errors import ConfigError, RunsFailed
from tlprotocols.launching import workers
from tlprotocols.launching.driver import sweep
from tlprotocols.launching.local import Local
from tlprotocols.launching.slurm import cluster as slurm_cluster
from tlprotocols.launching.slurm import job, locks, queue, submit, wait
from tlprotocols.launching.slurm.claims import Submission, in_queue
from tlprotocols.launching.slurm.queue import JobRecord
from tlprotocols.planning.cost import Cost
from tlprotocols.planning.plan import Run, plan
from tlprotocols.records import Files, files, save_config
from tlprotocols.training.run import execute

TAG = "0123456789abcdef"
NO_COST = Cost({}, False)
WAIT_TIME = "tlprotocols.launching.slurm.wait.time"
SBATCH = r"""
tasks=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\)%.*/\1/p' $1); tasks=$((${{tasks:-0}} + 1))
room=$(cat {here}/room 2>/dev/null || echo 1000)
if [ $tasks -gt $room ]; then echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2
  echo 'sbatch: error: Batch job submission failed: Job violates accounting/QOS policy' >&2; exit 1; fi
echo $((room - tasks)) > {here}/room
id=$(( $(cat {here}/last 2>/dev/null || echo 40) + 1 )); echo $id > {here}/last; cp $1 {here}/$id.sh
comment=$(sed -n "s/^#SBATCH --comment='\(.*\)'/\1/p" $1)
if grep -q -- --array= $1; then for n in $(seq 0 $((tasks - 1))); do
  echo "${{id}}_$n|PENDING|N/A|Priority|$(id -un)|$comment" >> {here}/queue; done
else echo "$id|PENDING|N/A|Priority|$(id -un)|$comment" >> {here}/queue; fi
echo "Submitted batch job $id"
"""
SQUEUE = r"""
[ ! -e {here}/down ] || {{ echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1; }}
echo "$@" >> {here}/queried; cat {here}/queue 2>/dev/null; true
"""
SCONTROL = r"""
[ ! -e {here}/down ] || {{ echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1; }}
case "$*" in *config) printf 'ClusterName             = north\nMaxArraySize            = 1001\n' ;;
update*) echo "$@" >> {here}/updated ;; *) cat {here}/ended 2>/dev/null ;; esac; true
"""
SCANCEL = r"""
for id in "$@"; do echo $id >> {here}/cancelled; sed -i "/^$id|/d" {here}/queue; done
"""


@dataclasses.dataclass
class Fake:
    """A cluster named north, which keeps its queue in a file."""

    here: Path

    def read(self, name: str) -> list[str]:
        path = self.here / name
        return path.read_text().splitlines() if path.exists() else []

    def add(
        self, id: str, tag: str = TAG, state: str = "PENDING", reason: str = "Priority", start: str = "N/A"
    ) -> None:
        with open(self.here / "queue", "a") as file:
            file.write(f"{id}|{state}|{start}|{reason}|{queue.user_name()}|tlprotocols:{tag} runs in x\n")

    def job_script(self, id: int) -> str:
        return (self.here / f"{id}.sh").read_text()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    here = tmp_path / "slurm"
    here.mkdir()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("scontrol", SCONTROL), ("scancel", SCANCEL)):
        script(here, name, text.format(here=here))
    script(here, "srun", "exit 1")
    monkeypatch.setenv("PATH", f"{here}:{os.environ['PATH']}")
    queue.cluster_name.cache_clear()
    yield Fake(here)
    queue.cluster_name.cache_clear()


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def cells(cfg: Callable[..., Config], results: Path) -> Callable[..., list[Config]]:
    """Configurations of cells; none of them is executed."""
    return lambda *cells: [cfg(*cell.split(), f"results_dir={results}") for cell in cells]


def claim(run: Run, number: str, tag: str = TAG, **changes: object) -> JobRecord:
    """Record a job of ours for a run."""
    log = f"{run.config.results_dir}/slurm/{number}_0_log.out"
    record = JobRecord(number, log, "2026-01-01T00:00:00", cluster="north", user=queue.user_name(), tag=tag, mem_gb=4)
    record = dataclasses.replace(record, **changes)  # type: ignore[arg-type]
    files(run.config).folder.mkdir(parents=True, exist_ok=True)
    record.write(files(run.config))
    return record


def trained(config: Config) -> Config:
    """The base of a run, trained."""
    base = base_of(config)
    assert base is not None
    save_config(base)
    execute(base, "base")
    return base


def finish(config: Config) -> None:
    """What a job leaves of a run."""
    files(config).row.parent.mkdir(exist_ok=True)
    files(config).row.write_text(json.dumps({**factors(config), "run_id": files(config).id, "val_top1": 0.5}))


def quiet(what: str, run: Run | None, detail: object) -> None:
    """Receives events."""


# who has a run


def test_one_call_of_squeue_for_all_jobs(fake: Fake, cells: Callable[..., list[Config]]) -> None:
    runs = plan(cells(*(f"layers=0 seed={seed}" for seed in range(5)))).requested
    for number, run in enumerate(runs):
        claim(run, f"7_{number}")
        fake.add(f"7_{number}")
    assert len(in_queue(runs)) == 5
    (queried,) = fake.read("queried")
    assert f"--user={queue.user_name()}" in queried


@pytest.mark.parametrize(
    ("recorded", "has_it"),
    [
        pytest.param({}, True, id="its own job"),
        pytest.param({"tag": "f" * 16}, False, id="another job of that number: the counter began anew"),
        pytest.param({"cluster": "south"}, False, id="a job of another cluster"),
        pytest.param({"job": "8"}, False, id="a job that has left the queue"),
        pytest.param({"tag": "", "cluster": "", "user": ""}, False, id="a record without a tag"),
    ],
)
def test_a_run_is_queued_only_by_the_job_that_was_submitted_for_it(
    recorded: dict[str, str], has_it: bool, fake: Fake, cells: Callable[..., list[Config]]
) -> None:
    (run,) = plan(cells("layers=0")).requested
    assert in_queue([run]) == {}
    claim(run, "7", **recorded)
    fake.add("7")
    assert bool(in_queue([run])) == has_it
    assert (cluster().look(plan([run.config])).state(run) == "running") == has_it


def test_a_strangers_job_is_no_job_of_a_run(fake: Fake, cells: Callable[..., list[Config]]) -> None:
    (run,) = plan(cells("layers=0")).requested
    claim(run, "7")
    (fake.here / "queue").write_text("7|RUNNING|N/A|None|stranger|\n")
    assert in_queue([run]) == {}


def test_jobs_of_an_interrupted_submission_are_cancelled_and_their_runs_submitted(
    fake: Fake, cells: Callable[..., list[Config]], results: Path
) -> None:
    (run,) = plan(cells("layers=0")).requested
    lost = Submission.new(results / "slurm", [[run.id]], None)
    lost.begin()  # and killed after sbatch, before job.json
    fake.add("9_0", lost.tag)
    fake.add("9_1", "a" * 16)  # of another results folder
    notes: list[object] = []
    cluster(wait=False).execute(plan([run.config]), NO_COST, lambda what, run, detail: notes.append(detail))
    assert fake.read("cancelled") == ["9_0"]
    assert "1 jobs of an interrupted submission were cancelled" in notes
    assert list(in_queue([run])) == [run.id]
    assert not list((results / "slurm" / "submissions").glob("*.begun"))


@pytest.mark.parametrize("options", [{"cancel": True}, {"wait": False}])
def test_an_interrupted_submission_of_another_user_is_theirs_to_cancel(
    options: dict[str, bool], fake: Fake, cells: Callable[..., list[Config]], results: Path
) -> None:
    one, other = plan(cells("layers=0", "layers=0 seed=1")).requested
    claim(one, "7", user="somebody")
    theirs = Submission.new(results / "slurm", [[other.id]], None)
    theirs.begin()
    lines = [f"7|PENDING|N/A|None|somebody|tlprotocols:{TAG}", f"9|PENDING|N/A|None|somebody|tlprotocols:{theirs.tag}"]
    (fake.here / "queue").write_text("\n".join(lines) + "\n")
    cluster(**options).execute(plan([one.config]), NO_COST, quiet)
    assert fake.read("cancelled") == []
    assert theirs.begun.exists()


def test_a_damaged_record_of_a_submission_is_named_and_ends_no_command(
    fake: Fake, cells: Callable[..., list[Config]], results: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (run,) = plan(cells("layers=0")).requested
    (results / "slurm" / "submissions").mkdir(parents=True)
    (results / "slurm" / "submissions" / f"{TAG}.begun").write_text("")
    cluster(wait=False).execute(plan([run.config]), NO_COST, quiet)
    assert list(in_queue([run])) == [run.id]
    cluster(cancel=True).execute(plan([run.config]), NO_COST, quiet)
    assert not in_queue([run])
    assert f"{TAG}.begun: no record of a submission" in caplog.text


def killed_while_it_records(sweep: list[Config], moment: str, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Submit a sweep, an array with a task a run, in a command that is killed after sbatch has taken it."""
    written: list[JobRecord] = []
    write = JobRecord.write

    def writes_until_killed(self: JobRecord, paths: Files) -> None:
        if len(written) == {"before the first record": 0, "between two records": 1}.get(moment):
            raise KeyboardInterrupt
        written.append(self)
        write(self, paths)

    def killed(self: Submission) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(JobRecord, "write", writes_until_killed)
        patched.setattr(Submission, "complete", killed)
        with pytest.raises(KeyboardInterrupt):
            cluster(wait=False, pack_minutes=0).execute(plan(sweep), NO_COST, quiet)
    assert len(fake.read("queue")) == len(sweep)
    return plan(sweep).requested


MOMENTS = ("before the first record", "between two records", "after the last record")


@pytest.mark.parametrize("moment", MOMENTS)
def test_jobs_that_sbatch_has_taken_stay_in_the_queue_when_the_command_is_killed(
    moment: str, fake: Fake, cells: Callable[..., list[Config]], results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = cells("layers=0", "layers=0 seed=1")
    runs = killed_while_it_records(sweep, moment, fake, monkeypatch)
    if moment == "after the last record":
        job._on_event("started", runs[0], "")
    notes: list[object] = []
    cluster(wait=False).execute(plan(sweep), NO_COST, lambda what, run, detail: notes.append(detail))
    assert sorted(claim.job.id for claim in in_queue(runs).values()) == ["41_0", "41_1"]
    assert (fake.read("last"), fake.read("cancelled")) == (["41"], [])
    assert "queue   squeue --jobs=41" in notes
    assert all(Path(claim.record.log).name == f"{claim.job.id}_0_log.out" for claim in in_queue(runs).values())
    assert bool(JobRecord.read(files(runs[0].config)).started) == (moment == "after the last record")
    assert not list((results / "slurm" / "submissions").glob("*.begun"))


@pytest.mark.parametrize("moment", MOMENTS)
def test_cancel_ends_what_a_killed_command_has_submitted(
    moment: str, fake: Fake, cells: Callable[..., list[Config]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = cells("layers=0", "layers=0 seed=1")
    killed_while_it_records(sweep, moment, fake, monkeypatch)
    cluster(cancel=True).execute(plan(sweep), NO_COST, quiet)
    assert (sorted(fake.read("cancelled")), fake.read("queue")) == (["41_0", "41_1"], [])


def test_cancel_ends_jobs_of_a_command_that_was_killed_before_it_knew_their_numbers(
    fake: Fake, cells: Callable[..., list[Config]], results: Path
) -> None:
    (run,) = plan(cells("layers=0")).requested
    lost = Submission.new(results / "slurm", [[run.id]], None)
    lost.begin()  # and killed after sbatch
    fake.add("9", lost.tag)
    cluster(cancel=True).execute(plan([run.config]), NO_COST, quiet)
    assert (fake.read("cancelled"), fake.read("queue")) == (["9"], [])


def test_a_run_that_another_user_has_in_the_queue_is_not_submitted_again(
    fake: Fake, cells: Callable[..., list[Config]]
) -> None:
    (run,) = plan(cells("layers=0")).requested
    claim(run, "7", user="somebody")
    script(
        fake.here, "squeue", f"case \"$*\" in *somebody*) echo '7|PENDING|N/A|None|somebody|tlprotocols:{TAG}' ;; esac"
    )
    cluster(wait=False).execute(plan([run.config]), NO_COST, quiet)
    assert fake.read("last") == []


# what is submitted


def test_a_lost_base_of_queued_runs_is_submitted_and_they_wait_for_it(
    fake: Fake, cells: Callable[..., list[Config]]
) -> None:
    (config,) = cells("layers=4")
    base, (run,) = trained(config), plan([config]).requested
    claim(run, "7_0")
    fake.add("7_0")
    slurm = cluster(wait=False)
    assert slurm.look(plan([config])).to_run == []
    files(base).weights.unlink()
    planned = slurm.look(plan([config]))
    assert [run.role for run in planned.to_run] == ["base"]
    assert planned.state(run) == "running"
    slurm.execute(planned, NO_COST, quiet)
    assert fake.read("last") == ["41"]
    assert fake.read("updated") == ["update jobid=7 dependency=afterany:41"]
    assert JobRecord.read(files(base)).job == "41"


def test_what_is_submitted_is_planned_from_disk_at_that_moment(fake: Fake, cells: Callable[..., list[Config]]) -> None:
    configs = cells("layers=4", "layers=0")
    base = trained(configs[0])
    planned = plan(configs)
    assert len(planned.to_run) == 2
    files(base).weights.unlink()  # after the plan
    execute(configs[1])
    cluster(wait=False).execute(planned, NO_COST, quiet)
    submitted = sorted(path.parent.name for path in files(base).folder.parent.glob("*/job.json"))
    assert submitted == sorted([files(base).id, planned.cells[0]])
    assert "--dependency=afterany:41" in fake.job_script(42)


def test_a_pack_whose_base_has_lost_its_weights_leaves_before_any_run_fails(
    cells: Callable[..., list[Config]],
    results: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(job, "SHARED_FOLDER_LAG", 0.0)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    (config,) = cells("layers=4")
    base, (run,) = trained(config), plan([config]).requested
    files(base).weights.write_bytes(b"damaged")
    job.Pack(str(results), ((run.id, "run"),), files(base).id)()
    assert f"the base {files(base).id} is not there (its weights are gone or damaged)" in capsys.readouterr().out
    assert not files(config).failure.exists()


def test_jobs_say_what_they_are_and_get_what_their_role_needs(
    fake: Fake, cells: Callable[..., list[Config]], results: Path
) -> None:
    (config,) = cells("layers=4")
    more = {"base": {"partition": "big", "time": 600, "mem_gb": 16, "cpus": 2}, "time": None, "mem_gb": 3}
    comment = {"comment": "project 7", "nice": "9"}
    cluster(wait=False, parameters=comment, **more).execute(plan([config]), NO_COST, quiet)
    (run,) = plan([config]).requested
    base, runs = fake.job_script(41), fake.job_script(42)
    tags = [JobRecord.read(Files(results, id)).tag for id in (str(run.base), run.id)]
    assert f"--comment='project 7 tlprotocols:{tags[0]} base in {results}'" in base
    assert f"--comment='project 7 tlprotocols:{tags[1]} runs of {run.base} in {results}'" in runs
    assert "--nice=9" in runs
    assert "--job-name=tlp-base\n" in base
    assert f"--job-name=tlp-runs-{str(run.base)[:8]}\n" in runs
    for text in ("--partition=big", "--time=600", "--mem=16384MB", "--cpus-per-task=2"):
        assert text in base
    for text in ("--time=15", "--mem=3072MB", "--cpus-per-task=1"):
        assert text in runs


@pytest.mark.parametrize(
    ("seconds", "cpus", "minutes"),
    [([60.0], 1, 15), ([1000.0], 1, 50), ([1000.0, 1000.0], 2, 50), ([1000.0] * 4, 2, 100), ([1e9], 1, 1440)],
)
def test_a_time_limit_is_three_times_the_estimate(seconds: list[float], cpus: int, minutes: int) -> None:
    work = {str(number): value for number, value in enumerate(seconds)}
    assert cluster(time=None, cpus=cpus).options.minutes("runs", work) == minutes
    assert cluster(time=7, cpus=cpus).options.minutes("runs", work) == 7


def test_a_run_that_ran_out_of_memory_gets_more_on_request(
    fake: Fake, cells: Callable[..., list[Config]], results: Path
) -> None:
    (config,) = cells("layers=0")
    (run,) = plan([config]).requested
    for given, then, next_ in ((4, "to_run", "--mem=8192MB"), (32, "failed", "")):
        record = claim(run, "7", started="now", mem_gb=given)
        (results / "slurm").mkdir(exist_ok=True)
        Path(record.log).write_text("slurmstepd: error: Detected 1 oom_kill event")
        assert cluster().look(plan([config])).state(run) == "failed"
        grows = cluster(more_memory=2, wait=False)
        assert grows.look(plan([config])).state(run) == then
        grows.execute(grows.look(plan([config])), NO_COST, quiet)
        assert not next_ or next_ in fake.job_script(41)
        (fake.here / "queue").unlink(missing_ok=True)
    assert fake.read("last") == ["41"]


def test_a_limit_of_the_cluster_is_ridden_out(
    fake: Fake, cells: Callable[..., list[Config]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (fake.here / "room").write_text("3")
    rode_out(fake, cells, monkeypatch, cluster(pack_minutes=0))


def test_no_more_than_max_queued_are_queued(
    fake: Fake, cells: Callable[..., list[Config]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rode_out(fake, cells, monkeypatch, cluster(pack_minutes=0, max_queued=3))


def rode_out(fake: Fake, cells: Callable[..., list[Config]], monkeypatch: pytest.MonkeyPatch, slurm: object) -> None:
    """A sweep of seven runs, of which three fit into the queue: each time that somebody looks, two jobs have ended."""
    configs = cells(*(f"layers=0 seed={seed}" for seed in range(7)))
    most, slept = 0, 0

    def sleep(seconds: float) -> None:
        nonlocal most, slept
        slept += 1
        time.sleep(0.001)
        assert slept < 10_000, "it does not end"
        lines = fake.read("queue")
        most = max(most, len(lines))
        for line in lines[:2]:
            number = line.split("|")[0]
            for config in configs:
                record = JobRecord.read(files(config))
                if record and record.job == number:
                    finish(config)
        (fake.here / "queue").write_text("".join(f"{line}\n" for line in lines[2:]))
        if (fake.here / "room").exists():
            (fake.here / "room").write_text(str(3 - len(lines[2:])))

    monkeypatch.setattr(WAIT_TIME, SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    monkeypatch.setattr(wait, "FIRST_LOOK", 0.01)
    failed = slurm.execute(plan(configs), NO_COST, quiet)  # type: ignore[attr-defined]
    assert failed == {}
    assert most == 3
    assert plan(configs).to_run == []


def test_a_refusal_for_good_is_said_and_ends_the_command(fake: Fake, cells: Callable[..., list[Config]]) -> None:
    script(fake.here, "sbatch", "echo 'sbatch: error: invalid partition specified: nowhere' >&2; exit 1")
    with pytest.raises(RunsFailed, match=r"the cluster took 0 runs and no more: .*invalid partition"):
        cluster().execute(plan(cells("layers=0")), NO_COST, quiet)


def packs_of(sweep: list[Config], results: Path) -> list[job.Pack]:
    """Submit a sweep. Returns what its jobs will do."""
    from submitit.core.utils import DelayedSubmission

    cluster(wait=False).execute(plan(sweep), NO_COST, quiet)
    return [DelayedSubmission.load(path).function for path in (results / "slurm").glob("*_submitted.pkl")]  # type: ignore[misc]


def test_a_local_command_leaves_alone_what_a_job_of_the_queue_will_execute(
    fake: Fake, cells: Callable[..., list[Config]], results: Path
) -> None:
    elsewhere = "machine.image_cache=/scratch/images"
    seeds = ("layers=0", "layers=0 seed=1")
    (pack,) = packs_of(cells(*(f"{seed} curve=true {elsewhere}" for seed in seeds)), results)
    before = pack._plan().runs

    def stopped(what: str, run: Run | None, detail: object) -> None:
        raise KeyboardInterrupt

    local = Local(workers=1, gpus=None, per_gpu=1, dry_run=False, retry_failed=False)
    with pytest.raises(KeyboardInterrupt):
        workers.execute(plan(cells(*seeds)), local._slots(cells("layers=0")[0]), stopped)
    assert pack._plan().runs == before


def test_a_job_has_the_device_and_the_folders_of_its_submission(
    fake: Fake, cells: Callable[..., list[Config]], results: Path
) -> None:
    (queued,) = cells("layers=0 machine.image_cache=/scratch/images machine.device=cpu")
    (pack,) = packs_of([queued], results)
    (here,) = cells("layers=0 machine.image_cache=/home/me/images machine.device=cuda")
    save_config(here)  # a local command has begun the run, and was stopped
    (run,) = pack._plan().runs.values()
    assert run.config.machine == queued.machine


# waiting


@pytest.fixture
def watch(fake: Fake, cells: Callable[..., list[Config]], results: Path) -> wait.Watch:
    """Waits for three runs, with jobs 7_0, 7_1 and 7_2, of which the last has left the queue."""
    runs = plan(cells(*(f"layers=0 seed={seed}" for seed in range(3)))).requested
    for number, run in enumerate(runs):
        claim(run, f"7_{number}")
    fake.add("7_0", state="RUNNING", reason="None", start="2026-01-01T10:00:00")
    fake.add("7_1", start="2026-01-01T12:00:00")
    events: list[tuple[str, object]] = []
    watch = wait.Watch(results, cluster().options, lambda what, run, detail: events.append((what, detail)), {})
    watch.runs = {run.id: run for run in runs}
    watch.events = events  # type: ignore[attr-defined]
    return watch


def test_waiting_says_what_runs_what_waits_and_why(watch: wait.Watch, fake: Fake) -> None:
    watch.look_at_queue()
    watch.look_at_queue()
    said = "queue: 1 running, 1 pending (Priority 1), the next is expected to start 2026-01-01T12:00:00"
    assert watch.events == [("queue", said)]  # type: ignore[attr-defined]


def test_a_lost_answer_never_ends_a_wait(watch: wait.Watch, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    (fake.here / "down").touch()
    for _ in range(5):
        watch.look_at_queue()
    (fake.here / "down").unlink()
    watch.look_at_queue()
    monkeypatch.setattr(queue, "why_lost", lambda record: (_ for _ in ()).throw(queue.NoAnswer("scontrol hangs")))
    watch.look_at_queue()
    assert (len(watch.runs), watch.again, watch.failed) == (3, {}, {})
    assert ("queue", "SLURM gives no answer (scontrol hangs); the next query follows") in watch.events  # type: ignore[attr-defined]


def test_a_controller_that_is_silent_when_runs_are_to_be_submitted_again_is_asked_later(
    fake: Fake, cells: Callable[..., list[Config]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (config,) = cells("layers=0")
    slept, asked_after, events = list[float](), list[int](), list[str]()

    def often_silent(*given: object) -> submit.Submitted:
        asked_after.append(len(slept))
        if 1 < len(asked_after) < 5:
            raise queue.NoAnswer("squeue hangs")
        return submit.submit(*given)  # type: ignore[arg-type]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        time.sleep(0.001)
        assert len(slept) < 10_000, "it does not end"
        if len(asked_after) < 5:
            (fake.here / "queue").write_text("")  # the job has ended, and nothing of it is left
        else:
            finish(config)

    monkeypatch.setattr(slurm_cluster, "submit", often_silent)
    monkeypatch.setattr(WAIT_TIME, SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    monkeypatch.setattr(wait, "FIRST_LOOK", 0.01)
    monkeypatch.setattr(wait, "SECOND_LOOK", 0.0)
    assert cluster().execute(plan([config]), NO_COST, lambda what, run, detail: events.append(what)) == {}
    assert events.count("finished") == 1
    assert fake.read("last") == ["42"]
    assert sorted(set(asked_after)) == asked_after, "without a pause"


def test_a_job_that_ends_before_its_run_begins_is_submitted_again_and_not_for_ever(watch: wait.Watch) -> None:
    lost = list(watch.runs.values())[2]
    for _ in range(wait.MOST_LOSSES):
        watch.look_at_queue()
        watch.look_at_queue()
        assert list(watch.again) == [lost.id]
        watch.runs |= watch.again
        watch.again.clear()
    watch.look_at_queue()
    watch.look_at_queue()
    assert watch.failed[lost.id].startswith("its SLURM job 7_2 ended without a result")


def goes_on(fake: Fake, monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], object]) -> None:
    """A cluster on which all jobs of the queue have ended whenever the next of these steps is done: one after each
    submission, the first for what is queued already."""
    done, slept = 0, 0

    def sleep(seconds: float) -> None:
        nonlocal done, slept
        slept += 1
        time.sleep(0.001)
        assert slept < 10_000, "it does not end"
        if fake.read("queue") and done < len(steps):
            steps[done]()
            done += 1
            (fake.here / "queue").write_text("")

    monkeypatch.setattr(WAIT_TIME, SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    monkeypatch.setattr(wait, "FIRST_LOOK", 0.01)
    monkeypatch.setattr(wait, "SECOND_LOOK", 0.0)


def in_job(run: Run, config: Config, role: str = "run") -> None:
    """A job executes this configuration of a run."""
    job._on_event("started", run, "")
    execute(config, role)
    job._on_event("finished", run, "")


@pytest.mark.parametrize("more", ["curve=true", "keep_weights=true", "predictions=true"])
def test_a_queued_run_of_which_more_is_wanted_is_submitted_again_when_its_job_has_ended(
    more: str, fake: Fake, cells: Callable[..., list[Config]], monkeypatch: pytest.MonkeyPatch
) -> None:
    less, wanted = cells("layers=0", f"layers=0 {more}")
    (run,) = plan([less]).requested
    claim(run, "7")
    fake.add("7")
    goes_on(fake, monkeypatch, lambda: in_job(run, less), lambda: in_job(run, wanted))
    assert cluster().execute(plan([wanted]), NO_COST, quiet) == {}
    assert fake.read("last") == ["41"]
    assert plan([wanted]).to_run == []


def test_a_queued_run_that_becomes_a_base_is_submitted_again_and_so_is_what_waits_for_it(
    fake: Fake, cells: Callable[..., list[Config]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (config,) = cells("layers=4")
    planned = plan([config])
    (run,) = planned.requested
    base = planned.runs[str(run.base)]
    claim(base, "7")  # of a sweep that needs no weights of it
    fake.add("7")

    def both() -> None:
        in_job(base, base.config, "base")
        in_job(run, config)

    goes_on(fake, monkeypatch, lambda: in_job(base, base.config), both)
    assert cluster().execute(planned, NO_COST, quiet) == {}
    assert "--dependency=afterany:7" in fake.job_script(41)
    assert "--job-name=tlp-base\n" in fake.job_script(42)
    assert "--dependency=afterany:42" in fake.job_script(43)
    assert (fake.read("last"), plan([config]).to_run) == (["43"], [])


def out_of_memory(*runs: Run) -> None:
    """Their job ends while it has these runs, and SLURM says in its log why."""
    for run in runs:
        job._on_event("started", run, "")
        record = JobRecord.read(files(run.config))
        assert record is not None
        Path(record.log).write_text("slurmstepd: error: Detected 1 oom_kill event")


def test_runs_that_shared_a_job_when_it_ran_out_of_memory_are_tried_alone_before_one_of_them_fails(
    fake: Fake, cells: Callable[..., list[Config]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = cells("layers=0", "layers=0 seed=1", "layers=0 seed=2")
    small, large, later = plan(sweep).requested
    slurm = cluster(cpus=2)
    states: list[str] = []

    def both_begin() -> None:
        out_of_memory(small, large)
        (fake.here / "queue").write_text("")
        states.extend(slurm.look(plan(sweep)).state(run) for run in (small, large, later))

    def each_alone() -> None:
        out_of_memory(large)
        for run in (small, later):
            in_job(run, run.config)

    goes_on(fake, monkeypatch, both_begin, each_alone)
    failed = slurm.execute(plan(sweep), NO_COST, quiet)
    assert states == ["to_run"] * 3
    assert failed is not None
    assert list(failed) == [large.id]
    assert "out of memory; raise hydra.launcher.mem_gb" in failed[large.id]
    assert len({JobRecord.read(files(run.config)).job for run in (small, large, later)}) == 3
    assert slurm.look(plan(sweep)).state(large) == "failed"


def test_a_run_that_ran_out_of_memory_stays_failed_when_others_of_its_job_are_submitted_again(
    fake: Fake, cells: Callable[..., list[Config]]
) -> None:
    sweep = cells("layers=0", "layers=0 seed=1")
    large, not_begun = plan(sweep).requested
    slurm = cluster(wait=False)
    slurm.execute(plan(sweep), NO_COST, quiet)
    out_of_memory(large)
    (fake.here / "queue").write_text("")
    assert [slurm.look(plan(sweep)).state(run) for run in (large, not_begun)] == ["failed", "to_run"]
    slurm.execute(slurm.look(plan(sweep)), NO_COST, quiet)
    assert list(in_queue([large, not_begun])) == [not_begun.id]
    assert slurm.look(plan(sweep)).state(large) == "failed"
    again = cluster(wait=False, retry_failed=True)
    again.execute(again.look(plan(sweep, retry_failed=True)), NO_COST, quiet)
    assert set(in_queue([large, not_begun])) == {large.id, not_begun.id}


def test_a_run_that_failed_by_itself_takes_no_blame_for_the_memory_of_its_job(
    fake: Fake, cells: Callable[..., list[Config]]
) -> None:
    sweep = cells("layers=0", "layers=0 seed=1")
    wrong, large = plan(sweep).requested
    slurm = cluster(wait=False)
    slurm.execute(plan(sweep), NO_COST, quiet)
    job._on_event("started", wrong, "")
    files(wrong.config).failure.write_text("ValueError: no")
    job._on_event("failed", wrong, "ValueError: no")
    out_of_memory(large)
    (fake.here / "queue").write_text("")
    assert [slurm.look(plan(sweep)).state(run) for run in (wrong, large)] == ["failed", "failed"]


def test_a_run_whose_job_ran_out_of_memory_after_it_had_finished_others_fails_at_once(
    fake: Fake, cells: Callable[..., list[Config]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = cells("layers=0", "layers=0 seed=1")
    first, second = plan(sweep).requested

    def in_turn() -> None:
        in_job(first, first.config)
        out_of_memory(second)

    goes_on(fake, monkeypatch, in_turn)
    failed = cluster().execute(plan(sweep), NO_COST, quiet)
    assert failed is not None
    assert (list(failed), fake.read("last")) == ([second.id], ["41"])


def test_a_job_records_that_it_has_finished_a_run_also_when_it_was_requeued_before_it_could(
    cells: Callable[..., list[Config]], results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    (config,) = cells("layers=0")
    (run,) = plan([config]).requested
    save_config(config)
    submitted = claim(run, "7")
    pack = job.Pack(str(results), ((run.id, "run"),))
    pack()
    record = JobRecord.read(files(config))
    assert record is not None
    assert str(record.started) <= str(record.finished)
    dataclasses.replace(record, finished=None).write(files(config))
    pack()
    assert JobRecord.read(files(config)).finished
    submitted.write(files(config))  # of a job that comes too late: it does nothing of the run
    pack()
    assert JobRecord.read(files(config)) == submitted


def test_a_run_that_is_trained_once_more_fails_with_its_job_although_it_has_a_row(
    fake: Fake, cells: Callable[..., list[Config]], monkeypatch: pytest.MonkeyPatch
) -> None:
    less, wanted = cells("layers=0", "layers=0 curve=true")
    (run,) = plan([less]).requested
    claim(run, "7")
    in_job(run, less)
    goes_on(fake, monkeypatch, lambda: job._on_event("started", run, ""))
    monkeypatch.setattr(queue, "ending", lambda record: {"JobState": "CANCELLED"})
    failed = cluster().execute(plan([wanted]), NO_COST, quiet)
    assert failed is not None
    assert failed[run.id].startswith("its SLURM job 41 ended without a result (cancelled)")
    assert fake.read("last") == ["41"]


def test_results_are_found_by_two_listings_and_not_by_a_look_into_every_folder(
    watch: wait.Watch, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = watch.runs.values()
    for run in (first, second):
        files(run.config).failure.write_text("Traceback\nValueError: no")
    job._on_event("failed", first, "")
    looked: list[Path] = []
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda self, **given: looked.append(self) or exists(self, **given))  # type: ignore[func-returns-value]
    watch._read_results()
    assert looked == [files(first.config).failure]
    assert watch.failed == {first.id: "ValueError: no"}


def test_the_state_is_shown_from_disk_while_the_controller_is_down(
    fake: Fake, cells: Callable[..., list[Config]], capsys: pytest.CaptureFixture[str]
) -> None:
    configs = cells("layers=0", "layers=0 seed=1")
    claim(plan(configs).requested[0], "7")
    (fake.here / "down").touch()
    sweep(configs, cluster(dry_run=True))
    printed = capsys.readouterr().out
    assert "plan: cells=2 runs=2 finished=0 running=1 failed=0 to_run=1" in printed
    assert "as job 7, unless that has ended: SLURM gives no answer (" in printed
    with pytest.raises(queue.NoAnswer):
        sweep(configs, cluster())


# ending


def test_cancel_ends_what_the_sweep_has_submitted_and_nothing_else(
    fake: Fake, cells: Callable[..., list[Config]], results: Path
) -> None:
    runs = plan(cells(*(f"layers=0 seed={seed}" for seed in range(4)), "layers=4")).requested
    packs = [[runs[0].id], [runs[1].id, "of another sweep"], [runs[2].id], [str(runs[4].base)]]
    submission = Submission.new(results / "slurm", packs, None)
    dependants = Submission.new(results / "slurm", [["of another sweep"]], runs[4].base)
    for one in (submission, dependants):
        one.begin()
        one.complete()
    base = plan([runs[4].config]).runs[str(runs[4].base)]
    for number, run in ((0, runs[0]), (1, runs[1]), (3, base)):
        claim(run, f"7_{number}", submission.tag)
    claim(runs[2], "7_2", submission.tag, user="somebody")
    for number in range(4):
        fake.add(f"7_{number}", submission.tag)
    fake.add("8", dependants.tag)
    fake.add("9", "b" * 16)
    notes: list[object] = []
    planned = cluster().look(plan([run.config for run in runs]))
    ended = cluster(cancel=True).execute(planned, NO_COST, lambda what, run, detail: notes.append(detail))
    assert ended is None
    assert fake.read("cancelled") == ["7_0"]
    assert notes[0] == "cancelled 1 jobs; what their runs have saved is kept"
    assert f"2 jobs go on: another sweep in {results} needs them" in notes
    assert "1 jobs go on: they are of somebody" in notes


# checks


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"time": 1, "warning": 60}, "hydra.launcher.warning=60: must be less than 60 seconds, .*time=1"),
        ({"time": None, "warning": 900}, "must be less than 900 seconds"),
        ({"base": {"partition": None, "time": 1, "mem_gb": None, "cpus": None}}, r"hydra\.launcher\.base\.time=1"),
    ],
)
def test_a_warning_must_come_after_the_beginning(given: dict[str, object], words: str, fake: Fake) -> None:
    with pytest.raises(ConfigError, match=words):
        cluster(**given).check()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"setup": ["true", "module load 'cuda 12'"]}, "hydra.launcher.setup: this line failed: module load 'cuda 12'"),
        ({"python": "/nowhere/python -s"}, "hydra.launcher.python: /nowhere/python is not on this node"),
        ({}, ""),
    ],
)
def test_what_keeps_a_job_from_beginning_is_named_in_its_log(
    given: dict[str, object], words: str, tmp_path: Path, fake: Fake
) -> None:
    lines = "\n".join([*submit._setup(cluster(**given).options), "echo python begins"])
    ended = subprocess.run(["bash", "-c", lines], capture_output=True, text=True)
    assert (ended.returncode == 0) == (not words) == ("python begins" in ended.stdout)
    (tmp_path / "log").write_text(f"other words\n{ended.stdout}{ended.stderr}")
    (fake.here / "ended").write_text("JobId=7 JobState=FAILED ExitCode=127:0")
    kind, reason = queue.why_lost(JobRecord("7", str(tmp_path / "log"), "now"))
    assert words in reason
    assert (kind == "setup") == bool(words)


NFS = (
    "21 1 0:20 / / rw - ext4 /dev/sda rw\n36 21 0:31 / /home rw,relatime shared:1 - nfs4 srv:/home rw,vers=4.2{more}\n"
)


@pytest.mark.parametrize(
    ("folder", "mounts", "noted"),
    [
        ("/home/me/results", NFS.format(more=""), False),
        ("/home/me/results", NFS.format(more=",local_lock=none"), False),
        ("/home/me/results", NFS.format(more=",local_lock=all,addr=1"), True),
        ("/homes/me", NFS.format(more=",local_lock=all"), False),
        ("/lus/x", "36 21 0:31 / /lus rw - lustre a@tcp:/l rw,flock,lazystatfs", False),
        ("/lus/x", "36 21 0:31 / /lus rw - lustre a@tcp:/l rw,localflock", True),
        ("/lus/x", "", False),
    ],
)
def test_locks_that_other_machines_do_not_see_are_noted(folder: str, mounts: str, noted: bool) -> None:
    note = locks.seen_by_none_else(Path(folder), mounts)
    assert (note is not None) == noted
    assert note is None or "machines do not see each other's locks" in note


def test_a_file_system_without_locks_is_refused(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locks.check_locks(results) is None
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    with pytest.raises(ConfigError, match="file locks that do not exclude each other; mount it with locks"):
        locks.check_locks(results)

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(ConfigError, match=r"no file locks there \(No locks available\)"):
        locks.check_locks(results)
    assert not list((results / "slurm").iterdir())


def test_two_machines_never_write_one_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr("os.replace", lambda source, target: written.append(str(source)))
    for machine in ("node1", "node2"):
        monkeypatch.setattr("platform.node", lambda machine=machine: machine)
        records.write_atomic(tmp_path / "row.json", "{}")
    assert len(set(written)) == 2


def test_a_plan_of_many_cells_works_out_once_what_varies(
    fake: Fake, cells: Callable[..., list[Config]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = cells(*(f"layers=0 seed={seed}" for seed in range(40)))
    runs = plan(configs).requested
    for number, run in enumerate(runs):
        claim(run, f"7_{number}")
        fake.add(f"7_{number}")
    calls = []
    monkeypatch.setattr("tlprotocols.planning.plan.factors", lambda config: calls.append(config) or factors(config))  # type: ignore[func-returns-value]
    sweep(configs, cluster(dry_run=True))
    assert capsys.readouterr().out.count("pending (Priority) in job 7_") == 40
    assert len(calls) <= 3 * 40
