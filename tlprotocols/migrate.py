"""Give finished rows the ids that their factors have now, after the fingerprint of a data set changed.

python -m tlprotocols.migrate results OLD dataset=tiny_imagenet dataset.root=PATH   # or an exported .csv

OLD is the column dataset.fingerprint of the rows; the new one is computed from the images. They must be the images that
the rows were trained on. Each id is recomputed before and after, so that no row of another rule is touched.
"""

import argparse
import sys
from pathlib import Path

from tlprotocols.config.compose import load
from tlprotocols.config.validate import keys
from tlprotocols.images import source
from tlprotocols.results import DIGEST, Row, identifier, read_rows, whole_numbers

FACTORS = {key.removesuffix(".name") for key, about in keys() if about["factor"]} - {"lr.layers"}


def identity(row: Row) -> Row:
    """The factors of a row, as they enter its id."""
    return {
        key: value
        for key, value in whole_numbers(row).items()
        if (key in FACTORS or key.startswith("lr.layers.")) and value is not None and value == value
    }


def new_ids(rows: list[Row], old: str, new: str) -> dict[str, str]:
    """The new id of every row with the old fingerprint, by its old id.

    Raises:
        ValueError: a row's id is not that of its factors.
    """
    ids = {}
    for row in rows:
        if row.get("dataset.fingerprint") == old:
            factors = identity(row)
            if identifier(factors) != row["run_id"]:
                raise ValueError(
                    f"row {row['run_id']}: its factors have the id {identifier(factors)}; nothing was changed"
                )
            ids[row["run_id"]] = identifier(factors | {"dataset.fingerprint": new})
    return ids


def migrate(results: Path, old: str, new: str) -> int:
    """Replace fingerprint and ids in the files of a results folder, or in an exported .csv. Returns how many rows."""
    ids = new_ids(read_rows(results), old, new)
    files = sorted((results / "rows").glob("*.json")) if results.is_dir() else [results]
    for file in files:
        text = file.read_text()
        if old in text:
            for before, after in {old: new, **ids}.items():
                text = text.replace(before, after)
            target = file.with_name(f"{ids[file.stem]}.json") if file.stem in ids else file
            target.write_text(text)
            if target != file:
                file.unlink()
    return len(ids)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tlprotocols.migrate", description=__doc__)
    parser.add_argument("results", type=Path, help="results folder, or exported .csv")
    parser.add_argument("old", help="fingerprint of the rows, 16 hexadecimal digits")
    parser.add_argument("overrides", nargs="+", help="the data set, as in dataset=folder dataset.root=PATH")
    args = parser.parse_args()
    try:
        config = load(*args.overrides)
        new = source(config.dataset, config.machine.store).fingerprint[:DIGEST]
        print(f"{migrate(args.results, args.old, new)} rows have new ids in {args.results}: {args.old} is now {new}")
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
