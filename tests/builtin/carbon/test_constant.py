from datetime import UTC, datetime, timedelta

import pytest

from greensv.builtin.carbon.constant import ConstantCarbonSource, ConstantOptions
from greensv.config.load import validate
from greensv.errors import ConfigError

AT = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
OPTIONS = {"g_per_kwh": 24.5, "method": "direct", "provenance": "our supplier's label, 2025"}


def test_the_stated_factor_holds_at_any_time() -> None:
    options, problems = validate(ConstantOptions, OPTIONS)
    assert problems == []
    source = ConstantCarbonSource().with_options(options)
    (factor,) = source.series("site-a", AT, AT + timedelta(days=3))
    assert (factor.valid_from, factor.valid_to) == (AT, AT + timedelta(days=3))
    assert (factor.g_per_kwh, factor.method, factor.source) == (24.5, "direct", "our supplier's label, 2025")
    assert (factor.region, factor.is_estimated) == ("site-a", False)


def test_everything_must_be_stated() -> None:
    _, problems = validate(ConstantOptions, {}, where="energy.carbon_options.constant")
    assert {problem.where.rpartition(".")[2] for problem in problems} == {"g_per_kwh", "method", "provenance"}
    with pytest.raises(ConfigError, match=r"needs its factor: .* in \[energy.carbon_options.constant\]"):
        ConstantCarbonSource().factor("FRA", AT)


@pytest.mark.parametrize("changes", [{"g_per_kwh": 0}, {"g_per_kwh": 4000}, {"method": "LCA"}, {"provenance": ""}])
def test_nonsense_is_refused(changes: dict[str, object]) -> None:
    assert len(validate(ConstantOptions, {**OPTIONS, **changes})[1]) == 1


def test_its_method_is_the_stated_one() -> None:
    source = ConstantCarbonSource(ConstantOptions(**OPTIONS))  # type: ignore[arg-type]
    assert source.with_method("direct") is source
    with pytest.raises(ConfigError, match="gives direct factors only"):
        source.with_method("life-cycle")
