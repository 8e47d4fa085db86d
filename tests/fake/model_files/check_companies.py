"""Checks a CSV of companies: 50 rows, no field empty, no name twice, every row marked as sample."""

import collections
import csv
import sys

with open(sys.argv[1], newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))

assert len(rows) == 50, f"{len(rows)} rows"
assert all(all(row.values()) for row in rows), "an empty field"
assert len({row["name"] for row in rows}) == len(rows), "a name twice"
assert {row["source"] for row in rows} == {"sample"}, "a row that is not marked"
for sector, count in collections.Counter(row["sector"] for row in rows).most_common():
    print(f"{count:3} {sector}")
print(f"ok: {len(rows)} rows, all marked as sample data")
