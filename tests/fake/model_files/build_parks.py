"""build_parks.py FILE: builds a SQLite database with a sample of US national parks."""

import sqlite3
import sys

# name, states, year it became a national park. From memory: sample data.
PARKS = [
    ("Acadia", "ME", 1919),
    ("Arches", "UT", 1971),
    ("Badlands", "SD", 1978),
    ("Big Bend", "TX", 1944),
    ("Bryce Canyon", "UT", 1928),
    ("Canyonlands", "UT", 1964),
    ("Congaree", "SC", 2003),
    ("Crater Lake", "OR", 1902),
    ("Death Valley", "CA NV", 1994),
    ("Denali", "AK", 1917),
    ("Everglades", "FL", 1947),
    ("Glacier", "MT", 1910),
    ("Grand Canyon", "AZ", 1919),
    ("Grand Teton", "WY", 1929),
    ("Joshua Tree", "CA", 1994),
    ("Mesa Verde", "CO", 1906),
    ("Mount Rainier", "WA", 1899),
    ("Olympic", "WA", 1938),
    ("Redwood", "CA", 1968),
    ("Rocky Mountain", "CO", 1915),
    ("Saguaro", "AZ", 1994),
    ("Sequoia", "CA", 1890),
    ("Yellowstone", "WY MT ID", 1872),
    ("Yosemite", "CA", 1890),
    ("Zion", "UT", 1919),
]

SCHEMA = """
CREATE TABLE about (note TEXT NOT NULL);
CREATE TABLE parks (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, year INTEGER NOT NULL CHECK (year >= 1872));
CREATE TABLE park_states (park INTEGER NOT NULL REFERENCES parks (id), state TEXT NOT NULL, PRIMARY KEY (park, state));
CREATE INDEX park_states_by_state ON park_states (state);
"""

database = sqlite3.connect(sys.argv[1])
database.executescript("PRAGMA foreign_keys = ON;" + SCHEMA)
with database:
    database.execute("INSERT INTO about VALUES ('Sample data from memory. Not fetched from NPS.gov, not complete.')")
    for name, states, year in PARKS:
        park = database.execute("INSERT INTO parks (name, year) VALUES (?, ?)", (name, year)).lastrowid
        database.executemany("INSERT INTO park_states VALUES (?, ?)", [(park, state) for state in states.split()])
integrity = database.execute("PRAGMA integrity_check").fetchone()[0]
print(f"built {sys.argv[1]}: {len(PARKS)} parks (sample data), integrity {integrity}")
