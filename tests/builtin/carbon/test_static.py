import csv
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib import resources

import pytest

from greensv.builtin.carbon.static import StaticCarbonSource, StaticOptions, greensv_carbon_sources
from greensv.errors import ConfigError

AT = datetime(2026, 3, 4, tzinfo=UTC)


def rows() -> list[dict[str, str]]:
    text = (resources.files("greensv.builtin.carbon") / "static.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


@pytest.mark.parametrize(
    ("region", "g_per_kwh", "year"),
    [
        # Our World in Data's chart "Carbon intensity of electricity generation", 2023: 56, 381, 582 and 713.
        ("FRA", 56.039, "2023"),
        ("DEU", 380.95, "2023"),
        ("CHN", 582.317, "2023"),
        ("IND", 713.441, "2023"),
        ("WORLD", 481.0, "2023"),
    ],
)
def test_factors_are_those_of_the_published_table(region: str, g_per_kwh: float, year: str) -> None:
    factor = StaticCarbonSource().factor(region, AT)
    assert (factor.region, factor.g_per_kwh, factor.valid_at) == (region, g_per_kwh, year)
    assert factor.method == "life-cycle"


def test_a_factor_names_its_publisher_and_licence() -> None:
    for region in ("FRA", "WORLD"):
        source = StaticCarbonSource().factor(region, AT).source
        assert "Ember" in source
        assert "CC BY 4.0" in source


def test_the_case_of_a_region_does_not_matter() -> None:
    assert StaticCarbonSource().factor("fra", AT) == StaticCarbonSource().factor("FRA", AT)


@pytest.mark.parametrize(
    ("region", "suggestion"),
    [
        ("FR", r"did you mean FRA \(France\) or FRO \(Faroe Islands\)\?"),
        ("Germny", r"did you mean DEU \(Germany\)\?"),
        ("france", r"did you mean FRA \(France\)\?"),
        ("WORDL", r"did you mean WORLD \(World\)\?"),
    ],
)
def test_an_unknown_region_is_met_with_a_suggestion(region: str, suggestion: str) -> None:
    with pytest.raises(ConfigError, match=rf"no carbon intensity for region '{region}'; {suggestion}"):
        StaticCarbonSource().factor(region, AT)


@pytest.mark.parametrize("region", ["", "Q", "42"])
def test_an_unknown_region_is_met_with_all_that_are_known(region: str) -> None:
    with pytest.raises(ConfigError, match="known are WORLD and countries") as caught:
        StaticCarbonSource().factor(region, AT)
    assert all(row["region"] in str(caught.value) for row in rows())


def test_every_row_is_a_plausible_life_cycle_figure() -> None:
    table = rows()
    assert len(table) == 213
    assert len({row["region"] for row in table}) == len(table)
    for row in table:
        assert len(row["region"]) == 3 or row["region"] == "WORLD"
        # Life-cycle: hydropower alone is above 10 g/kWh; the dirtiest grids burn brown coal or oil in old plants.
        assert 10 < float(row["g_per_kwh"]) < 1500, row
        assert 2000 <= int(row["year"]) <= 2023


def test_the_source_is_registered_under_its_name() -> None:
    assert [source.name for source in greensv_carbon_sources()] == ["static"]


def test_listing_the_source_loads_nothing_heavy() -> None:
    code = (
        "import sys, greensv.builtin.carbon.static as s; s.greensv_carbon_sources(); "
        "print(sorted({'torch', 'optuna', 'sqlalchemy', 'csv'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_the_year_can_be_asked_for_and_is_never_another_one() -> None:
    assert StaticCarbonSource(StaticOptions(year=2023)).factor("FRA", AT).valid_at == "2023"
    with pytest.raises(ConfigError, match="the table has FRA for 2023, not for 2020; leave out the year"):
        StaticCarbonSource(StaticOptions(year=2020)).factor("FRA", AT)
    assert StaticCarbonSource().factor("FRA", AT).source.endswith(", 2023")


def test_a_series_is_one_factor_for_the_whole_time() -> None:
    (factor,) = StaticCarbonSource().series("fra", AT, AT + timedelta(days=400))
    assert (factor.valid_from, factor.valid_to, factor.region) == (AT, AT + timedelta(days=400), "FRA")
