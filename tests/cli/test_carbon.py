"""`greensv carbon` on a study that was searched, with tables and with both providers on loopback."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulated.carbon_server import TOKEN, CarbonServer, carbon_server


@pytest.fixture
def server() -> Iterator[CarbonServer]:
    with carbon_server() as server:
        yield server


def as_json(greensv, *options: object) -> dict:
    found = greensv("carbon", *options, "--json")
    assert found.code == 0, found.err
    (line,) = found.out.splitlines()
    return json.loads(line)


def configure(folder: Path, **energy: object) -> None:
    """Changes the stored configuration, as if the study had been searched with another carbon source."""
    with sqlite3.connect(folder / "runs" / "greensv.db") as connection:
        where = "WHERE key = 'greensv:config'"
        ((stored,),) = connection.execute(f"SELECT value_json FROM study_user_attributes {where}").fetchall()
        config = json.loads(json.loads(stored))
        config["energy"] |= energy
        connection.execute(f"UPDATE study_user_attributes SET value_json = ? {where}", [json.dumps(json.dumps(config))])
    connection.close()


def delete_factors(folder: Path) -> None:
    with sqlite3.connect(folder / "runs" / "greensv.db") as connection:
        connection.execute("DELETE FROM greensv_carbon_factors")
    connection.close()


def test_grams_by_account_purpose_and_trial_add_up(greensv, searched):
    found = as_json(greensv)
    (own,) = found["own"]
    assert (own["source"], own["region"], own["method"]) == ("static", "WORLD", "life-cycle")
    spent_kwh = json.loads(greensv("budget", "--json").out)["spent_kwh"]
    assert own["energy_kwh"] == pytest.approx(spent_kwh)
    assert own["carbon_g"] == pytest.approx(481 * spent_kwh)
    assert own["is_complete"]
    assert sum(row["carbon_g"] for row in own["by_account"]) == pytest.approx(own["carbon_g"])
    assert {row["purpose"] for row in own["by_account"]} >= {"training", "evaluation", "probe"}
    assert "Ember" in own["provenance"][0]
    trials = [json.loads(line) for line in greensv("trials", "--json").out.splitlines()]
    told = {trial["number"]: trial["carbon_g"] for trial in trials}
    assert {row["trial"]: row["carbon_g"] for row in found["by_trial"]} == pytest.approx(told)


def test_the_study_is_named_in_any_way(greensv, searched, study_file):
    expected = as_json(greensv)
    for way in (("tiny",), (study_file,), ("--study-name", "tiny")):
        assert as_json(greensv, *way) == expected
    assert greensv("carbon", "tiny", "--study-name", "tiny").code == 2
    assert "no study named 'tinny'" in greensv("carbon", "tinny").err
    assert "nothing.toml" in greensv("carbon", "nothing.toml").err


def test_what_if_recomputes_for_other_countries(greensv, searched):
    found = as_json(greensv, "--what-if", "fra,USA, CHN")
    grids = {row["region"]: row for row in found["what_if"]}
    assert list(grids) == ["FRA", "USA", "CHN"]
    kwh = found["own"][0]["energy_kwh"]
    assert grids["FRA"]["carbon_g"] == pytest.approx(56.039 * kwh)
    assert grids["CHN"]["carbon_g"] == pytest.approx(582.317 * kwh)
    assert grids["FRA"]["mean_g_per_kwh"] == pytest.approx(56.039)
    assert as_json(greensv)["what_if"] == [], "nothing of it is stored"
    table = greensv("carbon", "--what-if", "FRA,CHN").out
    assert "elsewhere" in table
    assert "56.039 g/kWh" in table
    assert "warning" not in table
    assert "no carbon intensity for region 'Mars'" in greensv("carbon", "--what-if", "Mars").err
    assert greensv("carbon", "--what-if", "FRA,,").code == 2
    assert greensv("carbon", "--what-if", "FRA", "--fill").code == 2
    both = greensv("carbon", "--what-if", "FRA", "--region", "CHN")
    assert both.code == 2
    assert "leave out --region" in both.err


def test_tables_are_for_people(greensv, searched):
    out = greensv("carbon").out
    assert "Carbon of 'tiny'" in out
    assert "training" in out
    assert "481 g/kWh" in out
    assert "source: Ember" in out
    assert "incomplete" not in out


def test_a_live_source_can_be_filled_in_afterwards(greensv, searched, server):
    configure(searched, carbon_source="rte", region="FRA", carbon_options={"rte": {"base_url": server.rte_url}})
    delete_factors(searched)
    before = as_json(greensv)["own"][0]
    assert before["carbon_g"] is None
    assert not before["is_complete"]
    assert before["uncovered_s"] == pytest.approx(before["duration_s"])
    assert server.asked == [], "without --fill nobody is asked"
    assert "carbon incomplete" in greensv("carbon").out
    assert "Carbon: not known in FRA" in greensv("budget").out
    told = json.loads(greensv("budget", "--json").out)
    assert (told["carbon_g"], told["is_carbon_incomplete"]) == (None, True)

    server.rte = lambda at: 20
    filled = as_json(greensv, "--fill")
    assert filled["filled_s"] == pytest.approx(before["duration_s"])
    assert filled["own"][0]["carbon_g"] == pytest.approx(20 * before["energy_kwh"])
    assert filled["own"][0]["method"] == "direct"
    assert as_json(greensv)["own"][0]["is_complete"], "it is stored"
    assert "20 g/kWh (direct; rte)" in greensv("budget").out
    assert json.loads(greensv("budget", "--json").out)["carbon_g"] == pytest.approx(20 * before["energy_kwh"])


def test_a_source_that_cannot_tell_is_said_and_nothing_is_lost(greensv, searched, server):
    configure(searched, carbon_source="rte", region="FRA", carbon_options={"rte": {"base_url": server.rte_url}})
    delete_factors(searched)
    server.instead = (503, "text/html", "")
    found = as_json(greensv, "--fill")
    assert found["filled_s"] == 0
    assert "HTTP 503" in found["problems"][0]
    assert "HTTP 503" in greensv("carbon", "--fill").out


def test_what_a_plan_without_the_past_tells_is_kept_and_the_rest_is_said(greensv, searched, server, monkeypatch):
    """One charge three days back, all others today: the plan knows today alone."""
    monkeypatch.setenv("ELECTRICITY_MAPS_TOKEN", TOKEN)
    server.has_past_range = False
    server.maps = lambda at: 100
    options = {"electricity-maps": {"base_url": server.maps_url}}
    configure(searched, carbon_source="electricity-maps", region="FR", carbon_options=options)
    delete_factors(searched)
    with sqlite3.connect(searched / "runs" / "greensv.db") as connection:
        connection.execute(
            "UPDATE greensv_charges SET started_at = started_at - 3 * 86400.0 "
            "WHERE rowid = (SELECT min(rowid) FROM greensv_charges)"
        )
    connection.close()
    found = as_json(greensv, "--fill")
    own = found["own"][0]
    assert not own["is_complete"]
    assert 0 < own["carbon_g"] < 100 * own["energy_kwh"] * (1 + 1e-9)
    assert found["filled_s"] > 0
    assert own["uncovered_s"] > 2 * 86_400 - 3600
    assert "told no factor for" in found["problems"][0]


def test_another_source_beside_the_studys_own_and_the_warning(greensv, searched, server):
    server.rte = lambda at: 30
    configure(searched, carbon_options={"rte": {"base_url": server.rte_url}})
    assert as_json(greensv, "--source", "rte", "--region", "FRA", "--fill")["own"][0]["carbon_g"] > 0
    both = as_json(greensv)["own"]
    assert [(row["source"], row["method"]) for row in both] == [("static", "life-cycle"), ("rte", "direct")]
    assert "do not compare" in greensv("carbon").out
    assert "do not compare" not in greensv("carbon", "--source", "static").out
    life_cycle = greensv("carbon", "--source", "rte", "--region", "FRA", "--method", "life-cycle")
    assert "gives direct factors only" in life_cycle.err
    assert "knows France alone" in greensv("carbon", "--source", "rte").err, "the study's region is WORLD"


def test_what_if_by_history_of_a_live_source(greensv, searched, server, monkeypatch):
    monkeypatch.setenv("ELECTRICITY_MAPS_TOKEN", TOKEN)
    server.maps = lambda at: 100
    configure(searched, carbon_options={"electricity-maps": {"base_url": server.maps_url}})
    options = ("--what-if", "FR,US-CAL-CISO", "--source", "electricity-maps")
    found = as_json(greensv, *options)
    assert [row["region"] for row in found["what_if"]] == ["FR", "US-CAL-CISO"]
    for row in found["what_if"]:
        assert row["carbon_g"] == pytest.approx(100 * row["energy_kwh"])
    direct = as_json(greensv, *options, "--method", "direct")["what_if"][0]
    assert (direct["method"], direct["mean_g_per_kwh"]) == ("direct", pytest.approx(50.0))
    assert TOKEN not in (searched / "runs" / "greensv.db").read_bytes().decode("latin-1")
    assert "knows no zone 'XX'" in greensv("carbon", "--what-if", "XX", "--source", "electricity-maps").err
    monkeypatch.delenv("ELECTRICITY_MAPS_TOKEN")
    assert "set the environment variable" in greensv("carbon", "--what-if", "DE", *options[2:]).out


def test_a_study_without_charges_has_words_for_it(greensv, searched):
    with sqlite3.connect(searched / "runs" / "greensv.db") as connection:
        connection.execute("DELETE FROM greensv_charges")
    connection.close()
    assert "has no charges yet" in greensv("carbon").out
    assert as_json(greensv)["own"] == []


def test_an_old_study_without_factors_is_computed_from_the_table(greensv, searched):
    expected = as_json(greensv)["own"][0]["carbon_g"]
    delete_factors(searched)
    assert as_json(greensv)["own"][0]["carbon_g"] == pytest.approx(expected)
    assert as_json(greensv, "--fill")["filled_s"] > 0
