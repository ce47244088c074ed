"""Give finished rows the ids that their factors have now, after the fingerprint of a data set changed.

python -m tlprotocols.migrate results OLD dataset=tiny_imagenet dataset.root=PATH   # or an exported .csv

OLD is the column dataset.fingerprint of the rows; the new one is computed from the images. They must be the images that
the rows were trained on. Each id is recomputed before and after, so that no row of another rule is touched.
"""

import argparse
import csv
import io
import re
import sys
from pathlib import Path

from tlprotocols.config.compose import load
from tlprotocols.config.identity import DIGEST, identifier
from tlprotocols.images import source
from tlprotocols.records import Files, Row, read_row, write_atomic, write_row
from tlprotocols.results import identity_of_row, read_rows


def new_ids(rows: list[Row], dataset: str, old: str, new: str) -> dict[str, str]:
    """The new id of every row of this data set with the old fingerprint, by its old id.

    Raises:
        ValueError: there is none, an id is not that of its factors, or a new id is taken.
    """
    ids, taken = {}, {row["run_id"] for row in rows}
    for row in rows:
        if (row.get("dataset"), row.get("dataset.fingerprint")) == (dataset, old):
            factors = identity_of_row(row)
            if identifier(factors) != row["run_id"]:
                raise ValueError(f"row {row['run_id']}: its factors have another id; nothing was changed")
            ids[row["run_id"]] = identifier(factors | {"dataset.fingerprint": new})
    if not ids:
        raise ValueError(f"no row has dataset={dataset} and dataset.fingerprint={old}; nothing was changed")
    if clash := taken & set(ids.values()):
        raise ValueError(f"row {min(clash)} is there already; nothing was changed")
    return ids


def migrate(results: Path, dataset: str, old: str, new: str) -> int:
    """Replace fingerprint and ids in a results folder, or in an exported .csv. Returns how many rows.

    Raises:
        ValueError: as `new_ids` does.
    """
    ids = new_ids(read_rows(results), dataset, old, new)

    def moved(row: Row) -> Row:
        if row["run_id"] not in ids:
            return row
        before, after = row["run_id"], ids[row["run_id"]]
        base = ids.get(row.get("base_id") or "", row.get("base_id"))
        log = str(row.get("log") or "").replace(before, after)
        return row | {"run_id": after, "base_id": base, "dataset.fingerprint": new, "log": log}

    if results.is_dir():
        for before, after in ids.items():
            row = read_row(Files(results, before).row)
            assert row is not None  # it was read for `ids`
            here, there = Files(results, before), Files(results, after)
            if here.folder.is_dir():
                here.folder.rename(there.folder)
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


def main() -> None:
    """The command line."""
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
