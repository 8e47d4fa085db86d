"""query_parks.py FILE: asks the database of parks some questions."""

import sqlite3
import sys

QUERIES = {
    "note": "SELECT note FROM about",
    "parks": "SELECT count(*) FROM parks",
    "oldest": "SELECT name, year FROM parks ORDER BY year LIMIT 3",
    "states with most parks": "SELECT state, count(*) FROM park_states GROUP BY state ORDER BY 2 DESC, 1 LIMIT 3",
    "in more than one state": "SELECT name FROM parks JOIN park_states ON park = id GROUP BY id HAVING count(*) > 1",
    "since 1990": "SELECT count(*) FROM parks WHERE year >= 1990",
}

database = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
for name, query in QUERIES.items():
    rows = database.execute(query).fetchall()
    print(f"{name}: " + "; ".join(" ".join(map(str, row)) for row in rows))
