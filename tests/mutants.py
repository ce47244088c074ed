"""One-line bugs, each with the tests that must find it: `python -m tests.mutants [word ...]`.

Each bug is planted in a copy of the repository, and the tests named beside it run there. Exit code 1: some bug survived
its tests, or its line is not in the code any more. Words choose the bugs whose file or description holds one of them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 600  # seconds of the tests of one bug


@dataclass(frozen=True)
class Mutant:
    """A bug: in a file, a text that is there once, what takes its place, and the tests (files, and words for -k)."""

    bug: str
    file: str
    text: str
    instead: str
    tests: str
    words: str = ""


def in_(folder: str, name: str, *bugs: tuple[str, ...]) -> list[Mutant]:
    """Bugs of one file: (description, text, what takes its place, tests, words)."""
    return [Mutant(bug, f"{folder}/{name}.py", *rest) for bug, *rest in bugs]


MUTANTS = [
    *in_(
        "tlprotocols/training",
        "run",
        (
            "a run stops before all layers have learned",
            "losses[config.all_learn_from :]",
            "losses",
            "protocols",
            "stops_early",
        ),
        (
            "labels that a row got meanwhile are lost",
            "with_labels(numbers, meanwhile) if meanwhile else numbers",
            "numbers",
            "labels",
            "meanwhile or adds_while",
        ),
    ),
    *in_(
        "tlprotocols/training",
        "transfer",
        (
            "one layer too few is copied",
            "items())[:layers]:\n        state",
            "items())[: layers - 1]:\n        state",
            "transfer",
            "before_training",
        ),
    ),
    *in_(
        "tlprotocols/config",
        "schema",
        (
            "one layer too few is frozen",
            "if place < first or place in above",
            "if place < first - 1 or place in above",
            "transfer",
            "that_are_not_frozen",
        ),
    ),
    *in_(
        "tlprotocols/training/models",
        "network",
        (
            "batch norm of frozen layers moves",
            "            self.stages[name].eval()\n",
            "            pass\n",
            "models every_model bases",
            "statist or frozen or batch_norm",
        ),
    ),
    *in_(
        "tlprotocols/training",
        "optimizers",
        (
            "no weight decay where layers are frozen",
            "config.lr.high, config.weight_decay",
            "config.lr.high, 0.0 if config.freeze else config.weight_decay",
            "transfer plain_loop",
            "decays or plain",
        ),
        (
            "no momentum",
            "momentum=momentum, nesterov",
            "momentum=0.0, nesterov",
            "plain_loop transfer",
            "plain or one_update",
        ),
        (
            "frozen layers are in a group",
            " if layer not in never]",
            "]",
            "transfer",
            "group",
        ),
        (
            "rates are those of the next epoch",
            'group["name"], epoch, losses, update)',
            'group["name"], epoch + 1, losses, update)',
            "plain_loop transfer",
            "plain or rate_of_the_epoch",
        ),
    ),
    *in_(
        "tlprotocols/training",
        "loop",
        (
            "the order is keyed by split",
            'stream("order", config.seed',
            'stream("order", config.split',
            "train plain_loop",
            "order or plain",
        ),
        (
            "every epoch has the same order",
            'stream("order", config.seed, number)',
            'stream("order", config.seed)',
            "train",
            "order",
        ),
        ("a short last batch counts as a whole one", "alpha=len(labels)", "alpha=config.batch_size", "plain_loop", ""),
        ("evaluation with dropout", "    net.eval()\n", "", "plain_loop train", "plain or evaluation"),
    ),
    *in_(
        "tlprotocols/training",
        "shards",
        (
            "dropout is the same in every epoch",
            'torch.manual_seed(stream("dropout", self.config.seed, number))',
            'torch.manual_seed(stream("dropout", self.config.seed))',
            "plain_loop",
            "",
        ),
        ("a part counts as a whole batch", "* (len(labels) / batch)", "", "gradient", ""),
    ),
    *in_(
        "tlprotocols/training",
        "underfitting",
        (
            "a run near chance is not underfitted",
            "falls or left > NEAR",
            "falls and left > NEAR",
            "train",
            "underfitted",
        ),
        ("a rising loss is underfitted", "return -float(np.polyfit", "return float(np.polyfit", "train", "underfitted"),
    ),
    *in_(
        "tlprotocols",
        "budget",
        (
            "all passes of an epoch are alike",
            "(first + place, count)",
            "(first, count)",
            "budget",
            "passes",
        ),
        ("a pass too few", "math.ceil(recipe.epoch_updates / ", "int(recipe.epoch_updates / ", "budget", "passes"),
    ),
    *in_(
        "tlprotocols/training",
        "run",
        (
            "a run that is trained once more loses its sweeps",
            'sweep=sweeps(before, {"sweep": config.sweep})',
            "sweep=config.sweep",
            "labels",
            "trained_once_more",
        ),
        (
            "a run that diverged goes on",
            "        if not math.isfinite(train_loss):",
            "        if False:",
            "train",
            "diverged_run_that_is_stopped",
        ),
        (
            "the even and odd halves are exchanged",
            'score.right[~odd], "val_top1_odd": score.right[odd]',
            'score.right[odd], "val_top1_odd": score.right[~odd]',
            "train",
            "even",
        ),
        (
            "collapse is ln(K + 1)",
            "math.log(classes)) <= COLLAPSED",
            "math.log(classes + 1)) <= COLLAPSED",
            "train",
            "collapsed",
        ),
        (
            "validation on training images",
            "evaluate(net, config, data.train), evaluate(net, config, data.val)",
            "evaluate(net, config, data.train), evaluate(net, config, data.train)",
            "plain_loop",
            "",
        ),
        (
            "weights that overflowed are not diverged",
            "and all(bool(value.isfinite().all()) for value in net.parameters())",
            "",
            "train",
            "no_number",
        ),
        (
            "initialisation is keyed by split",
            'stream("initialisation", config.seed)',
            'stream("initialisation", config.split)',
            "plain_loop train",
            "plain or seeds",
        ),
        (
            "epochs of an earlier attempt are trained again",
            "done=state.done, losses",
            "done=0, losses",
            "train",
            "killed",
        ),
    ),
    *in_(
        "tlprotocols/images",
        "augment",
        (
            "crops are keyed by split",
            "stream(what, config.seed, epoch)",
            "stream(what, config.split, epoch)",
            "plain_loop",
            "",
        ),
        ("standard deviation of another channel", ".div_(std)", ".div_(std.flip(0))", "augment plain_loop", ""),
    ),
    *in_(
        "tlprotocols/images",
        "splits",
        (
            "splits are numbered from 1",
            "RandomState([split]).permutation(count)\n",
            "RandomState([split + 1]).permutation(count)\n",
            "splits",
            "stays_what_it_is",
        ),
        (
            "n is counted from the second image",
            "found = np.arange(n)\n",
            "found = np.arange(1, n + 1)\n",
            "splits train",
            "first_n",
        ),
        (
            "random subsets are keyed by split",
            'stream("subset", config.seed',
            'stream("subset", config.split',
            "splits",
            "random_subset",
        ),
        ("test images are trained on", "left = count - config.test_per_class\n", "left = count\n", "parts", ""),
        ("source and target are one half", "sorted(order[count // 2 :]", "sorted(order[: count // 2]", "splits", ""),
    ),
    *in_(
        "tlprotocols",
        "lr_schedule",
        ("the high rate falls late", "1 + since // lr.step", "1 + since // (lr.step + 1)", "rates", ""),
        (
            "one layer more is high",
            "len(stages) - config.high_lr_layers and",
            "len(stages) - 1 - config.high_lr_layers and",
            "rates",
            "",
        ),
        ("milestones are off by one", "epoch >= milestone", "epoch > milestone", "rates", "multistep"),
        (
            "an equal loss is an improvement",
            "waited = 0 if loss < lowest",
            "waited = 0 if loss <= lowest",
            "rates",
            "loss",
        ),
        ("a layer's own rate is not its own", "and layer not in lr.layers", "", "rates", "own_rate"),
    ),
    *in_(
        "tlprotocols/config",
        "identity",
        (
            "the base learns the target half",
            'half = "A" if half == "B" else "B"',
            'half = "A" if half == "A" else "B"',
            "bases sweep results",
            "half or names or golden or stay_what",
        ),
        ("legacy values are hashed", "or value != legacy[key]}", "or True}", "results", "stay_what"),
        (
            "the rate of the first layer that learns is idle",
            "return same or layer in config.frozen()",
            "return same or place <= config.freeze",
            "results",
            "",
        ),
        (
            "a test part makes another base",
            '        scratch["test_per_class"] = 0\n',
            "        pass\n",
            "parts",
            "shared",
        ),
    ),
    *in_(
        "tlprotocols/planning",
        "plan",
        ("runs come before their bases", "(run.id not in bases, -run", "(run.id in bases, -run", "plan", ""),
        (
            "a base without its weights is finished",
            'or finished_row(runs[id].config, "base")}',
            "or True}",
            "transfer faults",
            "digest or folder or random_bytes",
        ),
        (
            "the head learns alone for half of the wrong epochs",
            "head_epochs(config.head_epochs, config.epochs)",
            "head_epochs(config.head_epochs, config.base.epochs)",
            "protocols",
            "half_of_the_epochs",
        ),
        ("one class is learned", "if learned < 2:", "if learned < 1:", "plan", "nothing_to_learn"),
        ("test images cost nothing", 'for part in ("val", "test"))', 'for part in ("val",))', "parts", "evaluated"),
        ("what hangs on a failed base is tried", "or run.base in self.failed else", "else", "faults", "own_error"),
    ),
    *in_(
        "tlprotocols",
        "migrate",
        (
            "a base of other images keeps its fingerprint",
            'keys = ("dataset", "base.dataset")',
            'keys = ("dataset",)',
            "results",
            "found_by_predict",
        ),
    ),
    *in_(
        "tlprotocols/launching",
        "driver",
        (
            "a run that another sweep finished does not get the name of this one",
            "        if row is not None:  # finished before",
            "        if row is not None and id in planned.rows:  # finished before",
            "sweep",
            "beside_another",
        ),
        (
            "rows of another precision are not named",
            'auto = [key for key in ("precision", "base.precision")',
            'auto = [key for key in ("base.precision",)',
            "sweep",
            "precision_of_another",
        ),
    ),
    *in_(
        "tlprotocols/launching",
        "worker",
        (
            "a run is executed as another command wants it",
            "execute(config, role, advance, stop)",
            'execute(__import__("tlprotocols.records").records.read_config(paths), role, advance, stop)',
            "sweep",
            "beside_another",
        ),
    ),
    *in_(
        "tlprotocols",
        "records",
        (
            "a name that is added at the same time is lost",
            "            write_row(path, with_labels(row, other))",
            "            write_row(path, with_labels({**row, 'sweep': 'old'}, other))",
            "labels",
            "at_once",
        ),
        (
            "a row of other factors is finished",
            "    return bool(differ)\n",
            "    return False\n",
            "plan",
            "other_factors",
        ),
        (
            "a row that lacks a factor is finished",
            "if found[key] != value]",
            "if row.get(key) is not None and found[key] != value]",
            "faults",
            "row",
        ),
        ("the row of another run is taken", 'if row["run_id"] != id:', "if False:", "faults results", "row"),
        (
            "a run without its curve is finished",
            "if config.curve and not (",
            "if False and not (",
            "plan train",
            "curve",
        ),
        (
            "a failed write leaves its temporary file",
            "        temporary.unlink(missing_ok=True)\n",
            "",
            "faults",
            "full_disk",
        ),
    ),
    *in_(
        "tlprotocols",
        "errors",
        ("an error of the disk is the run's own", "PASSING = (OSError, ", "PASSING = (", "faults", "own_error"),
    ),
    *in_(
        "tlprotocols/launching/slurm",
        "submit",
        (
            "jobs of a killed command are forgotten",
            "        record_interrupted(folder)\n",
            "",
            "queue",
            "killed",
        ),
        (
            "runs that shared a job's memory share the next one, too",
            'single = role == "base" or (ran_out',
            'single = role == "base" or (False and ran_out',
            "queue",
            "shared_a_job",
        ),
    ),
    *in_(
        "tlprotocols/launching/slurm",
        "wait",
        (
            "a run that left less than is wanted fails",
            "if record.finished:",
            "if False:",
            "queue",
            "more_is_wanted or becomes_a_base",
        ),
        (
            "a run fails for the memory of another in its job",
            " or shared(run, record):",
            ":",
            "queue",
            "shared_a_job",
        ),
    ),
    *in_(
        "tlprotocols/launching/slurm",
        "job",
        (
            "a job computes on the device of another command",
            "self.machine or config.machine",
            "config.machine",
            "queue",
            "has_the_device",
        ),
    ),
    *in_(
        "tlprotocols/launching",
        "workers",
        (
            "a local command rewrites what a job of a cluster will read",
            "        save_if_no_job_reads(run.config)",
            '        __import__("tlprotocols.records").records.save_config(run.config)',
            "queue",
            "leaves_alone",
        ),
    ),
    *in_(
        "tlprotocols/launching",
        "ready",
        (
            "a run whose process died is not tried again",
            "if run.id in self.retried:",
            "if run.id not in self.retried:",
            "sweep faults",
            "twice or death",
        ),
        (
            "nobody waits for what another process executes",
            "in plan.to_run_or_await:",
            "in plan.to_run:",
            "sweep",
            "another_process",
        ),
    ),
    *in_(
        "tlprotocols/images",
        "folders",
        (
            "a folder that may not be read is empty",
            ", onerror=_stop)",
            ")",
            "hostile_trees",
            "may",
        ),
        ("16 bits become white", 'opened.mode[0] in "IF"', "False", "hostile_trees", "grey"),
        (
            "a validation folder is ignored",
            "    _check_parts(root, tree, classes)\n",
            "",
            "hostile_trees",
            "validation",
        ),
    ),
    *in_(
        "analysis",
        "statistics",
        (
            "the interval is one of 90%",
            "stats.t.ppf(0.975, n - 1)",
            "stats.t.ppf(0.95, n - 1)",
            "analysis_statistics",
            "",
        ),
        ("the spread is that of the population", "values.std(ddof=1)", "values.std(ddof=0)", "analysis_statistics", ""),
        (
            "seeds are units",
            '    return values.groupby(level="unit").mean()',
            "    return values",
            "analysis_statistics",
            "",
        ),
        ("Holm's factors rise", "np.arange(len(p), 0, -1)", "np.arange(1, len(p) + 1)", "analysis_statistics", "holm"),
        ("p is that of the other side", "p_above, 1 - p_above)", "1 - p_above, p_above)", "analysis_statistics", ""),
    ),
    *in_(
        "analysis",
        "evidence",
        (
            "one of two one-sided tests is enough",
            "inside = max(lower.p_above, upper.p_below)",
            "inside = min(lower.p_above, upper.p_below)",
            "analysis_statistics",
            "equivalence",
        ),
        (
            "the strongest part decides",
            "weakest, worst = max(parts",
            "weakest, worst = min(parts",
            "analysis_claims",
            "",
        ),
        (
            "rivals are not counted",
            "np.minimum(1.0, max(1, rivals) * p.min(axis=0))",
            "p.min(axis=0)",
            "analysis_statistics",
            "",
        ),
    ),
    *in_(
        "tlprotocols/searching",
        "recommendation",
        (
            "settings that the held-out images chose begin a search",
            'rows = rows[rows["fold"].notna()]',
            "rows = rows.copy()",
            "recommend",
            "held_out",
        ),
        ("held-out images of another factor count", "for key in HELD_OUT:", "for key in ():", "recommend", "held_out"),
        ("what the end cannot train is found there", "    _check_cells(search)\n", "", "recommend", "could_not"),
        ("the printed command leaves the user's file out", "*flags, *own,", "*own,", "recommend", "to_a_network"),
    ),
    *in_(
        "tlprotocols/searching",
        "search",
        ("searches of other images are one", "run_id(task)", "run_id(self.config)", "recommend", "share_nothing"),
        (
            "other images join a search",
            "for key, value in self.files.items():",
            "for key, value in ():",
            "recommend",
            "end_it",
        ),
    ),
    *in_(
        "tlprotocols/searching",
        "space",
        (
            "more layers are frozen than copied",
            'return found | {"freeze": min(found["freeze"], found["layers"])}',
            "return found",
            "recommend",
            "legal",
        ),
        ("a plus hides a factor", '.lstrip("+~")', "", "recommend", "legal"),
        ("no epoch before all layers decay", "1 if config.schedule", "0 if config.schedule", "recommend", "legal"),
    ),
    *in_(
        "tlprotocols/images",
        "cache",
        (
            "a folder is counted once for each data set",
            "caches.setdefault(cache.folder, cache)",
            "caches[cache.folder / str(len(caches))] = cache",
            "plan",
            "does_not_fit",
        ),
    ),
    *in_(
        "analysis/plested2019",
        "side_by_side",
        ("units of the first study are new", "second[~pd", "second[pd", "analysis_contrasts", "new_in_a_second"),
    ),
    *in_(
        "tlprotocols/searching",
        "comparison",
        ("all images right show that all others are", "(1.0, 1.0, 0.0, 0.0)", "()", "recommend", "interval"),
        ("a rare class counts like others", "if not balanced:", "if True:", "recommend", "rare"),
    ),
    *in_(
        "tlprotocols/images",
        "repeated",
        (
            "images that the base has learned are not counted",
            "found |= _learned_by_base(config)",
            "found |= set()",
            "datasets",
            "base_has_learned_them",
        ),
        (
            "images are measured on that another fold trains on",
            "for image in tested & group}",
            "for image in group}",
            "datasets",
            "noted",
        ),
        (
            "the base's images are not compared",
            "return found | _trained_on(base, among) if base is not None else found",
            "return found",
            "datasets",
            "noted",
        ),
    ),
    *in_(
        "analysis",
        "contrasts",
        (
            "p values are not adjusted",
            "holm([_two_sided(d) for d in tested])",
            "[_two_sided(d) for d in tested]",
            "analysis_contrasts",
            "",
        ),
    ),
    *in_(
        "analysis",
        "frame",
        (
            "unlike runs of a cell are averaged",
            "    _one_run_each(rows, cell)\n",
            "",
            "analysis_like_runs",
            "mean or cell",
        ),
        (
            "seeds of one split are enough for a test",
            'complete.index.unique("unit").size < min_units',
            "len(complete) < min_units",
            "analysis_like_runs",
            "seeds",
        ),
    ),
    *in_(
        "analysis",
        "study",
        (
            "one row without test images puts all on validation images",
            "without.mean() > 0.5",
            "without.any()",
            "analysis_like_runs",
            "images",
        ),
        (
            "the seeds of a study of one split are no units",
            'rows.groupby("seed").ngroup() if rows["unit_is_seed"].any() else units',
            "units",
            "analysis_like_runs",
            "seeds",
        ),
    ),
    *in_(
        "analysis",
        "selection",
        (
            "the units that any setting has most of are compared",
            "return count * int(covered.loc[units].all().sum()), count",
            "return count, count",
            "analysis_like_runs",
            "split",
        ),
        (
            "honest accuracy on the half that chose",
            "heldout = (odd[by_even] + even[by_odd]) / 2",
            "heldout = (even[by_even] + odd[by_odd]) / 2",
            "analysis_tables",
            "honest",
        ),
        (
            "settings are chosen by test images",
            "best = val.mean().idxmax()",
            "best = test.mean().idxmax()",
            "analysis_tables",
            "test_images",
        ),
        (
            "a split chooses for itself",
            "wide.drop(index=[unit]).mean()",
            "wide.mean()",
            "analysis_tables",
            "selection or noise",
        ),
    ),
    *in_(
        "tlprotocols/images",
        "cache",
        (
            "a folder with other files is an image cache",
            " and _has_only_our_files(path))",
            ")",
            "results_command",
            "no_image_cache",
        ),
        (
            "any name with px is that of an image cache",
            "if FOLDER.fullmatch(path.name)]",
            "]",
            "results_command",
            "no_image_cache",
        ),
    ),
    *in_(
        "tlprotocols/results",
        "__main__",
        (
            "weights of other programs are pruned",
            "    return _run_of(path).config.exists() or _run_of(path).row.exists()",
            "    return True",
            "results_command",
            "another_program",
        ),
    ),
    *in_(
        "tlprotocols/planning",
        "plan",
        (
            "of equal cells of several sweeps the last name stays",
            "sweep=_names(*named, config.sweep)",
            "sweep=config.sweep",
            "plan",
            "names",
        ),
        (
            "a cell that is also a base has the name of the sweep that copies from it",
            'named = [before.config.sweep] if before.role == "run" else []',
            "named = [before.config.sweep]",
            "plan",
            "names",
        ),
        (
            "a base has the name of one sweep only",
            "return dataclasses.replace(base, config=dataclasses.replace(base.config, sweep=names))",
            "return base",
            "plan",
            "names",
        ),
    ),
    *in_(
        "tlprotocols/config",
        "studies",
        (
            "null in a grid is a text",
            'return "null" if value is None else str(value)',
            "return str(value)",
            "studies",
            "null",
        ),
        (
            "a text of a sweep file lists values",
            "return QuotedString(value, Quote.single) if isinstance(value, str) else value",
            "return value",
            "studies",
            "value_of_a_sweep_file",
        ),
    ),
    *in_(
        "tlprotocols/results",
        "trackers",
        (
            "a tracker gets a damaged curve",
            "        if has_curve(paths, row):",
            "        if True:",
            "trackers",
            "damaged",
        ),
        (
            "a tracker that fails on one run gets none after it",
            "            if is_last_try:\n",
            "            if True:\n",
            "trackers",
            "keeps_no_other",
        ),
        (
            "three runs that cannot be written end it",
            "row = rest.pop() if is_last_try else rest.popleft()",
            "row = rest.popleft()",
            "trackers",
            "three_runs_that",
        ),
        (
            "a damaged curve is a failure of the tracker",
            "            if isinstance(error, Damaged):\n",
            "            if False:\n",
            "trackers",
            "many_damaged",
        ),
    ),
    *in_(
        "tlprotocols/results",
        "__init__",
        (
            "a damaged row keeps an imported one out",
            "        if read_row(path) is not None:",
            "        if path.exists():",
            "damaged_files",
            "replaced",
        ),
    ),
    *in_(
        "tlprotocols",
        "records",
        (
            "two that look at a run see each other",
            "fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)",
            "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)",
            "plan",
            "look_at",
        ),
        (
            "whoever executes a run is not seen",
            "    except (ImportError, OSError):  # not Unix; held, or no lock\n        return False",
            "    except (ImportError, OSError):  # not Unix; held, or no lock\n        return True",
            "plan",
            "look_at",
        ),
    ),
]


def main() -> None:
    """Plant and test each bug that was named."""
    words = sys.argv[1:]
    chosen = [m for m in MUTANTS if not words or any(word in m.file or word in m.bug for word in words)]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        _copy(copy)
        survived = [mutant for mutant in chosen if not _is_found(mutant, copy)]
    print(f"{len(chosen) - len(survived)} of {len(chosen)} bugs found")
    sys.exit(bool(survived))


def _copy(to: Path) -> None:
    """The files of the repository, those too that are new."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)


def _is_found(mutant: Mutant, copy: Path) -> bool:
    """Plant a bug, run its tests, take it out again."""
    path, begun = copy / mutant.file, time.monotonic()
    whole = path.read_text()
    if whole.count(mutant.text) != 1:
        print(f"STALE     {mutant.file}: {mutant.bug}: its text is there {whole.count(mutant.text)} times", flush=True)
        return False
    path.write_text(whole.replace(mutant.text, mutant.instead))
    files = [f"tests/test_{name}.py" for name in mutant.tests.split()]
    line = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files, "-k", mutant.words]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        code: int | None = subprocess.run(
            line, cwd=copy, env=environment, capture_output=True, timeout=LIMIT, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        code = None  # it hangs, which is seen; or the machine is busy
    finally:
        path.write_text(whole)
    verdict = {0: "SURVIVED", 1: "found", None: "TIMEOUT"}.get(code, f"ERROR {code}")
    print(f"{verdict:9} {mutant.file}: {mutant.bug} ({time.monotonic() - begun:.0f} s)", flush=True)
    return code in (1, None)


if __name__ == "__main__":
    main()
