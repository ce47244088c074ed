"""Give finished rows the ids that their factors have now, after the fingerprint of a data set changed.

python -m tlprotocols.migrate results OLD dataset=tiny_imagenet dataset.root=PATH   # or an exported .csv

OLD is the column dataset.fingerprint of the rows; the new one is computed from the images. They must be the images that
the rows were trained on. Each id is recomputed before and after, so that no row of another rule is touched.
"""

import argparse
import csv
import io
import json
import re
import sys
from contextlib import suppress
from pathlib import Path

from tlprotocols.config.compose import load
from tlprotocols.config.identity import DIGEST, identifier
from tlprotocols.errors import until_pipe_closes
from tlprotocols.images import source
from tlprotocols.records import Files, Row, read_json, read_row, write_atomic, write_row
from tlprotocols.results import identity_of_row, read_rows


def new_ids(rows: list[Row], dataset: str, old: str, new: str) -> dict[str, str]:
    """The new id of every row of this data set with the old fingerprint, by its old id.

    Raises:
        ValueError: there is none, an id is not that of its factors, or a new id is taken.
    """
    ids, known = {}, {row["run_id"]: row for row in rows}
    for row in rows:
        if changed := _fingerprints(row, dataset, old, new):
            factors = identity_of_row(row)
            if identifier(factors) != row["run_id"]:
                raise ValueError(f"row {row['run_id']}: its factors have another id; nothing was changed")
            ids[row["run_id"]] = identifier(factors | changed)
    if not ids:
        raise ValueError(f"no row has dataset={dataset} and dataset.fingerprint={old}; nothing was changed")
    clash = {after for before, after in ids.items() if after in known and not _is_copy(known[before], known[after])}
    if clash:
        raise ValueError(f"row {min(clash)} is there already; nothing was changed")
    return ids


def _fingerprints(row: Row, dataset: str, old: str, new: str) -> Row:
    """The fingerprints of a row that change: of its images, of those of its base."""
    keys = ("dataset", "base.dataset")
    return {f"{k}.fingerprint": new for k in keys if (row.get(k), row.get(f"{k}.fingerprint")) == (dataset, old)}


def _is_copy(row: Row, other: Row) -> bool:
    """Whether a row was moved already, by a migration that was interrupted before it removed the old one."""
    return all(row.get(key) == other.get(key) for key in ("date", "host", "val_top1", "val_loss", "train_loss"))


def migrate(results: Path, dataset: str, old: str, new: str) -> int:
    """Replace fingerprint and ids in a results folder, or in an exported .csv. Returns how many rows.

    Raises:
        ValueError: as `new_ids` does, or the folder of a run with a new id is there.
    """
    rows = read_rows(results)
    ids = new_ids(rows, dataset, old, new)
    for before, after in ids.items():
        if results.is_dir() and all(Files(results, id).folder.exists() for id in (before, after)):
            folder = Files(results, after).folder
            raise ValueError(f"{folder} is there already, of a run that was begun; remove it. Nothing was changed")

    def moved(row: Row) -> Row:
        if row["run_id"] not in ids:
            return row
        before, after = row["run_id"], ids[row["run_id"]]
        base = ids.get(row.get("base_id") or "", row.get("base_id"))
        log = str(row.get("log") or "").replace(before, after)
        return row | {"run_id": after, "base_id": base, **_fingerprints(row, dataset, old, new), "log": log}

    if results.is_dir():
        bases = {row.get("base_id") for row in rows}
        # Bases come last: a run that an interrupted migration left would not find the new id of its base.
        for before, after in sorted(ids.items(), key=lambda pair: pair[0] in bases):
            row = read_row(Files(results, before).row)
            assert row is not None  # it was read for `ids`
            here, there = Files(results, before), Files(results, after)
            if here.folder.is_dir():
                here.folder.rename(there.folder)
                _renew_config(there, dataset, old, new)
            write_row(there.row, moved(row))
            here.row.unlink()
    else:
        with results.open(newline="") as file:
            table = csv.DictReader(file)
            rows, columns = [moved(row) for row in table], list(table.fieldnames or ())
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(results, text.getvalue())
    return len(ids)


def _renew_config(paths: Files, dataset: str, old: str, new: str) -> None:
    """Give the saved configuration of a run its fingerprints; one that cannot be read stays, `predict` names it."""
    with suppress(FileNotFoundError, ValueError):
        content = read_json(paths.config)
        for of in (content["dataset"], content["base"]["dataset"]):
            if of and (of["name"], of["fingerprint"]) == (dataset, old):
                of["fingerprint"] = new
        write_atomic(paths.config, json.dumps(content, indent=1))


def main() -> None:
    """The command line."""
    until_pipe_closes(_main)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tlprotocols.migrate", description=__doc__)
    parser.add_argument("results", type=Path, help="results folder, or exported .csv")
    parser.add_argument("old", help="fingerprint of the rows, 16 hexadecimal digits")
    parser.add_argument("overrides", nargs="+", help="the data set, as in dataset=folder dataset.root=PATH")
    args = parser.parse_args()
    if not re.fullmatch(f"[0-9a-f]{{{DIGEST}}}", args.old):
        sys.exit(f"{args.old}: a fingerprint has {DIGEST} hexadecimal digits")
    try:
        config = load(*args.overrides)
        new = source(config.dataset, config.machine.image_cache).fingerprint[:DIGEST]
        count = migrate(args.results, config.dataset.name, args.old, new)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
    print(f"{count} rows have new ids in {args.results}: {args.old} is now {new}")


if __name__ == "__main__":
    main()
