"""The client of Prometheus against servers that answer wrongly. A real server: test_job_energy, builtin/meters."""

import json

import pytest

from greensv.energy.cluster.prometheus import PrometheusClient, checked_url, scrape_interval_s, selector_of
from greensv.energy.cluster.raw_energy import RawEnergy, Scale, cumulative_j
from greensv.energy.meter import Domain
from greensv.errors import MeterError
from simulated.prometheus_server import Answers, answering, free_port

HTML = "<!doctype html><title>Sign in</title>"


def said(answers: Answers) -> str:
    with answering(answers), pytest.raises(MeterError) as raised:
        PrometheusClient(answers.url, timeout_s=0.2).raw("x", duration_s=60)
    return str(raised.value)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (Answers(status=401), "wants a token: set the environment variable GREENSV_PROMETHEUS_TOKEN"),
        (Answers(status=403), "HTTP 403"),
        (Answers(body=HTML), "something else than JSON .*Sign in"),
        (Answers(status=502, body=HTML), "HTTP 502"),
        (Answers(status=503), "no explanation"),
        (Answers(body='{"status":"error","errorType":"timeout","error":"too slow"}'), "answers timeout: too slow"),
        (Answers(body="[]"), "not Prometheus's"),
        (Answers(body='{"status":"success","data":{"resultType":"vector","result":[]}}'), "not Prometheus's"),
        (Answers(body='{"status":"success","data":{"resultType":"matrix","result":[{"values":[1]}]}}'), "not Prom"),
        (Answers(status=302, headers={"Location": "http://elsewhere/"}), "redirects to 'http://elsewhere/'"),
        (Answers(delay_s=0.5), r"did not answer within 0\.2 s"),
        (
            Answers(status=400, body='{"status":"error","errorType":"bad_data","error":"parse error"}'),
            "bad_data: parse error.; give a selector",
        ),
        (
            Answers(status=422, body='{"status":"error","errorType":"execution","error":"too many samples"}'),
            "execution: too many samples",
        ),
    ],
)
def test_every_wrong_answer_is_told(answers: Answers, expected: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("GREENSV_PROMETHEUS_TOKEN", raising=False)
    message = said(answers)
    assert answers.url in message
    with pytest.raises(MeterError, match=expected):
        raise MeterError(message)


def test_a_token_is_not_sent_where_a_server_points(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GREENSV_PROMETHEUS_TOKEN", "secret-token")
    with answering(Answers()) as elsewhere:
        assert "redirects" in said(Answers(status=307, headers={"Location": f"{elsewhere.url}/api/v1/query"}))
        assert elsewhere.asked == []


def test_a_token_that_is_none_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GREENSV_PROMETHEUS_TOKEN", "secret\ntoken")
    message = said(Answers())
    assert "GREENSV_PROMETHEUS_TOKEN" in message
    assert "secret" not in message


def test_a_server_that_is_gone_is_told():
    with pytest.raises(MeterError, match="cannot be reached"):
        PrometheusClient(f"http://127.0.0.1:{free_port()}").clock_offset_s()


def test_the_servers_clock_is_told_from_ours():
    body = json.dumps(
        {"status": "success", "data": {"resultType": "scalar", "result": [1700000000.25, "1700000000.25"]}}
    )
    times = iter([10.0, 10.5])
    with answering(Answers(body=body)) as answers:
        client = PrometheusClient(answers.url, monotonic=lambda: next(times))
        assert client.clock_offset_s() == pytest.approx(1700000000.25 - 10.25)


def test_what_is_no_number_is_left_out():
    values = [[1.0, "5"], [2.0, "NaN"], [3.0, "+Inf"], [4.0, "7"]]
    result = [{"metric": {"__name__": "x", "a": "b"}, "values": values}]
    body = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}})
    with answering(Answers(body=body)) as answers:
        (series,) = PrometheusClient(answers.url).raw('x{a="b"}', duration_s=1.5)
        assert "1500ms" in answers.asked[0][0]
    assert series.samples == ((1.0, 5.0), (4.0, 7.0))
    assert str(series) == 'x{a="b"}'


@pytest.mark.parametrize("url", ["", "localhost:9090", "ftp://h", "http://", "http://h:notaport", "http://h?query=up"])
def test_an_url_that_cannot_be_used_is_refused(url: str):
    with pytest.raises(MeterError, match="URL"):
        checked_url(url)


def test_an_url_with_a_password_is_refused_without_showing_it():
    with pytest.raises(MeterError) as raised:
        checked_url("https://me:secret@host:9090")
    assert "secret" not in str(raised.value)


def test_the_path_in_front_of_the_api_is_kept():
    assert checked_url("https://host/prometheus/") == "https://host/prometheus"
    assert checked_url("https://host/prometheus/api/v1") == "https://host/prometheus"


def test_labels_are_quoted():
    assert selector_of("x", a='say "hi"\\') == 'x{a="say \\"hi\\"\\\\"}'


def test_the_scrape_interval_is_the_median():
    assert scrape_interval_s([(0, 1), (15, 1), (30, 1), (90, 1)]) == 15
    assert scrape_interval_s([(0, 1)]) is None


COUNTER = Scale(domain=Domain("cpu", "0"), kind="counter-joules", range_j=1000.0, max_power_w=20.0)


def test_a_counter_is_unwrapped_sample_by_sample():
    curve, gaps = cumulative_j([(0, 900), (10, 980), (20, 60), (30, 100)], COUNTER, interval_s=10)
    assert curve == [(0, 0.0), (10, 80.0), (20, pytest.approx(160.0)), (30, pytest.approx(200.0))]
    assert gaps == []


def test_a_counter_bridges_a_gap_and_power_is_interpolated():
    _, (gap,) = cumulative_j([(0, 100), (10, 200), (40, 300)], COUNTER, interval_s=10)
    assert str(gap) == "cpu:0: no samples for 30 s; its counter bridges it"
    power = Scale(domain=Domain("node"), kind="power-watts", unit=0.001)
    curve, (gap,) = cumulative_j([(0, 100_000), (10, 300_000), (40, 100_000)], power, interval_s=10)
    assert curve[-1] == (40, pytest.approx(2000 + 6000))
    assert gap.is_interpolated


def test_a_reset_and_an_ambiguous_gap_are_errors():
    with pytest.raises(MeterError, match="reset"):
        cumulative_j([(0, 500), (10, 5)], COUNTER, interval_s=10)
    with pytest.raises(MeterError, match="more than once"):
        cumulative_j([(0, 500), (60, 600)], COUNTER, interval_s=10)


def test_samples_that_were_seen_are_not_counted_again():
    series = RawEnergy(COUNTER, interval_s=10)
    series.add([(0, 100), (10, 200)])
    series.add([(0, 100), (10, 200), (20, 250)])
    assert series.energy_j == pytest.approx(150.0)
    assert series.newest_at == 20
