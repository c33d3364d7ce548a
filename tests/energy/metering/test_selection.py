from dataclasses import dataclass, replace
from typing import Annotated

import pytest
from annotated_types import Gt

from greensv.energy.meter import Domain
from greensv.energy.metering.selection import choose_meters, open_meters
from greensv.errors import ConfigError, MeterError
from simulated.scripted import ScriptedMeter

CPU, DRAM = Domain("cpu", "0"), Domain("dram", "0")
GPU = Domain("gpu", "GPU-1")


def nvml(*uuids: str, **kwargs) -> ScriptedMeter:
    return ScriptedMeter("nvml", *(Domain("gpu", uuid) for uuid in uuids), **kwargs)


def rapl(*domains: Domain, **kwargs) -> ScriptedMeter:
    return ScriptedMeter("rapl", *domains, **kwargs)


def pyrapl(*domains: Domain, **kwargs) -> ScriptedMeter:
    return ScriptedMeter("pyrapl", *domains, **kwargs)


def estimate(**kwargs) -> ScriptedMeter:
    return ScriptedMeter("estimate", Domain("cpu"), Domain("dram"), quality="estimated", **kwargs)


def chosen(meters, names=("auto",), **kwargs) -> dict[str, list[str]]:
    choices = choose_meters(meters, names, **kwargs)
    return {c.meter.name: [str(domain) for domain in c.availability.domains] for c in choices if c.is_chosen}


def test_auto_prefers_measured_to_estimated():
    meters = [estimate(), pyrapl(CPU, DRAM), rapl(CPU, DRAM), nvml("GPU-1")]
    assert chosen(meters, gpu_uuids=["GPU-1"]) == {"nvml": ["gpu:GPU-1"], "rapl": ["cpu:0", "dram:0"]}


def test_auto_estimates_only_what_nothing_measures():
    assert chosen([rapl(CPU), estimate()]) == {"rapl": ["cpu:0"], "estimate": ["dram"]}


def test_auto_takes_pyrapl_where_rapl_is_unavailable():
    meters = [rapl(reason="no zones"), pyrapl(CPU, DRAM), estimate()]
    assert chosen(meters) == {"pyrapl": ["cpu:0", "dram:0"]}


def test_auto_estimates_everything_where_nothing_is_measured():
    meters = [nvml(reason="no driver"), rapl(reason="no zones"), pyrapl(reason="no zones"), estimate()]
    assert chosen(meters) == {"estimate": ["cpu", "dram"]}
    why = {choice.meter.name: choice.why for choice in choose_meters(meters, ["auto"])}
    assert why == {
        "nvml": "not available: no driver",
        "rapl": "not available: no zones",
        "pyrapl": "not available: no zones",
        "estimate": "estimated: nothing here measures it",
    }


def test_auto_ignores_meters_of_other_packages():
    """Installing a package never changes a number."""
    assert chosen([ScriptedMeter("wall-plug", Domain("node")), rapl(CPU, DRAM)]) == {"rapl": ["cpu:0", "dram:0"]}


def test_auto_refuses_to_leave_the_cpu_out():
    with pytest.raises(MeterError, match="no meter for dram: estimate: no /proc; mend estimate"):
        choose_meters([rapl(CPU), estimate(reason="no /proc")], ["auto"])
    with pytest.raises(MeterError, match="no meter for cpu and dram: no meters are installed"):
        choose_meters([], ["auto"])


def test_auto_stands_alone():
    with pytest.raises(MeterError, match="'auto' stands alone, found auto, rapl"):
        choose_meters([rapl(CPU), estimate()], ["auto", "rapl"])


def test_a_gpu_in_use_that_nothing_measures_is_an_error():
    meters = [nvml(reason="no driver"), rapl(CPU, DRAM)]
    with pytest.raises(MeterError, match=r"no meter measures gpu:GPU-1, which is in use.*no driver; mend nvml"):
        choose_meters(meters, ["auto"], gpu_uuids=["GPU-1"])
    with pytest.raises(MeterError, match="no meter measures gpu:GPU-2"):
        choose_meters([nvml("GPU-1"), rapl(CPU, DRAM)], ["auto"], gpu_uuids=["GPU-1", "GPU-2"])


def test_named_meters_may_not_leave_a_gpu_out_either():
    with pytest.raises(MeterError, match="--device cpu"):
        choose_meters([nvml("GPU-1"), rapl(CPU, DRAM)], ["rapl"], gpu_uuids=["GPU-1"])


def test_gpus_are_asked_for_as_nvml_writes_them():
    meter = nvml("GPU-1")
    choose_meters([meter, rapl(CPU, DRAM)], ["nvml", "rapl"], gpu_uuids=["1"])
    assert meter.requests[0].gpu_uuids == ("GPU-1",)


def test_meters_know_the_processes_that_work_with_this_one():
    meter = rapl(CPU, DRAM)
    choose_meters([meter], ["rapl"], process_ids=[7, 8])
    assert meter.requests[0].process_ids == (7, 8)


def test_named_meters_are_taken_exactly():
    assert chosen([rapl(CPU), pyrapl(CPU), estimate()], ["rapl"]) == {"rapl": ["cpu:0"]}


def test_an_unavailable_named_meter_gives_its_reason_and_remedy():
    with pytest.raises(MeterError, match="'rapl' is not available: no zones; mend rapl"):
        choose_meters([rapl(reason="no zones"), estimate()], ["rapl"])


def test_an_unknown_meter_gets_a_suggestion():
    with pytest.raises(MeterError, match=r"no meter named 'rapI'; did you mean 'rapl'\? \(installed: auto, rapl\)"):
        choose_meters([rapl(CPU)], ["rapI"])


def test_two_meters_on_one_domain_are_an_error_naming_both():
    with pytest.raises(MeterError, match=r"'rapl' \(cpu:0\) and 'estimate' \(cpu\) would both count"):
        choose_meters([rapl(CPU, DRAM), estimate()], ["rapl", "estimate"])


def roles(meters, names, **kwargs) -> dict[str, dict[str, str]]:
    choices = choose_meters(meters, names, **kwargs)
    return {c.meter.name: {str(d): role for d, role in c.roles.items()} for c in choices if c.is_chosen}


def plug(*domains: Domain, **kwargs) -> ScriptedMeter:
    return ScriptedMeter("wall-plug", *(domains or (Domain("node"),)), **kwargs)


def test_a_node_is_charged_and_split_by_the_meters_of_its_parts():
    meters = [rapl(CPU, DRAM), nvml("GPU-1"), plug()]
    assert roles(meters, ["rapl", "nvml", "wall-plug"], gpu_uuids=["GPU-1"]) == {
        "rapl": {"cpu:0": "part", "dram:0": "part"},
        "nvml": {"gpu:GPU-1": "part"},
        "wall-plug": {"node": "charged"},
    }


def test_a_host_holds_no_gpu_which_is_charged_beside_it():
    meters = [plug(Domain("host")), rapl(CPU, DRAM), nvml("GPU-1")]
    assert roles(meters, ["wall-plug", "rapl", "nvml"], gpu_uuids=["GPU-1"]) == {
        "wall-plug": {"host": "charged"},
        "rapl": {"cpu:0": "part", "dram:0": "part"},
        "nvml": {"gpu:GPU-1": "charged"},
    }


def test_a_host_within_a_node_is_a_part_of_it():
    meters = [ScriptedMeter("ipmi", Domain("host")), plug(), rapl(CPU)]
    assert roles(meters, ["ipmi", "wall-plug", "rapl"]) == {
        "ipmi": {"host": "part"},
        "wall-plug": {"node": "charged"},
        "rapl": {"cpu:0": "part"},
    }


def test_a_node_covers_the_gpus_and_a_host_does_not():
    assert roles([plug(), nvml("GPU-1")], ["wall-plug"], gpu_uuids=["GPU-1"]) == {"wall-plug": {"node": "charged"}}
    with pytest.raises(MeterError, match="no meter measures gpu:GPU-1"):
        choose_meters([plug(Domain("host")), nvml("GPU-1")], ["wall-plug"], gpu_uuids=["GPU-1"])


def test_two_meters_of_the_node_or_of_one_part_of_it_are_an_error():
    with pytest.raises(MeterError, match=r"'wall-plug' \(node\) and 'ipmi' \(node\) would both count.*--also-meter"):
        choose_meters([plug(), ScriptedMeter("ipmi", Domain("node"))], ["wall-plug", "ipmi"])
    with pytest.raises(MeterError, match=r"'rapl' \(cpu:0\) and 'pyrapl' \(cpu:0\) would both count"):
        choose_meters([plug(), rapl(CPU), pyrapl(CPU)], ["wall-plug", "rapl", "pyrapl"])


def test_a_jobs_share_of_a_node_is_no_sum_of_whole_sockets():
    class Job(ScriptedMeter):
        def probe(self, request):
            return replace(super().probe(request), counts_others=False)

    with pytest.raises(MeterError, match=r"'job' \(node\) counts this job alone, and 'rapl' \(cpu:0\)"):
        choose_meters([Job("job", Domain("node")), rapl(CPU)], ["rapl", "job"])
    assert roles([plug(), Job("job", CPU)], ["job", "wall-plug"])["job"] == {"cpu:0": "part"}


def test_everything_chosen_without_a_whole_is_charged():
    assert roles([rapl(CPU), nvml("GPU-1"), estimate()], ["auto"], gpu_uuids=["GPU-1"]) == {
        "nvml": {"gpu:GPU-1": "charged"},
        "rapl": {"cpu:0": "charged"},
        "estimate": {"dram": "charged"},
    }


def test_meters_beside_may_measure_the_same_joules_and_come_from_other_packages():
    meters = [rapl(CPU, DRAM), ScriptedMeter("codecarbon", Domain("cpu"), GPU), plug()]
    assert roles(meters, ["rapl"], also=["codecarbon", "wall-plug"]) == {
        "rapl": {"cpu:0": "charged", "dram:0": "charged"},
        "codecarbon": {"cpu": "beside", "gpu:GPU-1": "beside"},
        "wall-plug": {"node": "beside"},
    }
    assert [c.domains("charged") for c in choose_meters(meters, ["rapl"], also=["wall-plug"])] == [(CPU, DRAM), ()]


def test_meters_beside_measure_no_gpu_in_use():
    with pytest.raises(MeterError, match="no meter measures gpu:GPU-1"):
        choose_meters([rapl(CPU), nvml("GPU-1")], ["rapl"], also=["nvml"], gpu_uuids=["GPU-1"])


def test_meters_beside_that_cannot_be_used_say_how_to_leave_them_out():
    meters = [rapl(CPU, DRAM), ScriptedMeter("zeus", reason="no GPU"), estimate()]
    leave_out = r"leave \w+ out of energy\.also_meters \(--also-meter\)"
    with pytest.raises(
        MeterError, match=f"'zeus', to be shown beside, is not available: no GPU; mend zeus.*{leave_out}"
    ):
        choose_meters(meters, ["auto"], also=["zeus"])
    with pytest.raises(MeterError, match=f"no meter named 'zuse'; did you mean 'zeus'.*{leave_out}"):
        choose_meters(meters, ["auto"], also=["zuse"])
    with pytest.raises(MeterError, match=f"'rapl' is charged already.*{leave_out}"):
        choose_meters(meters, ["auto"], also=["rapl"])
    with pytest.raises(MeterError, match=f"'auto' chooses what is charged.*{leave_out}"):
        choose_meters(meters, ["rapl"], also=["auto"])


def test_meters_may_find_the_visible_gpus_themselves():
    meter = nvml("GPU-1")
    choose_meters([meter, rapl(CPU, DRAM)], ["auto"], uses_visible_gpus=True)
    assert (meter.requests[0].uses_visible_gpus, meter.requests[0].gpu_uuids) == (True, ())


def test_opened_meters_know_their_roles():
    choices = choose_meters([rapl(CPU), plug(), estimate()], ["rapl", "wall-plug"], also=["estimate"])
    assert {m.name: dict(m.roles) for m in open_meters(choices)} == {
        "rapl": {CPU: "part"},
        "wall-plug": {Domain("node"): "charged"},
        "estimate": {Domain("cpu"): "beside", Domain("dram"): "beside"},
    }


def test_a_probe_that_raises_makes_the_meter_unavailable():
    class Broken(ScriptedMeter):
        def probe(self, request):
            raise TypeError("joules are no str")

    with pytest.raises(MeterError, match=r"its probe failed \(TypeError: joules are no str\); report this"):
        choose_meters([Broken("broken")], ["broken"])


@dataclass(frozen=True, slots=True, kw_only=True)
class PlugOptions:
    port: str = "/dev/ttyUSB0"
    scale: Annotated[float, Gt(0)] = 1.0


class Plug(ScriptedMeter):
    options_type = PlugOptions


def test_options_are_validated_and_handed_to_their_meter():
    plug = Plug("plug", Domain("node"))
    choose_meters([plug], ["plug"], options={"plug": {"scale": 2}})
    choose_meters([plug], ["plug"])
    assert [request.options for request in plug.requests] == [PlugOptions(scale=2.0), PlugOptions()]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"plug": {"scael": 1, "scale": -1}}, r"energy\.options\.plug\.scael: unknown key; did you mean 'scale'"),
        ({"plug": {"scael": 1, "scale": -1}}, r"energy\.options\.plug\.scale: "),
        ({"plugg": {}}, "energy.options.plugg: no meter named 'plugg'; did you mean 'plug'"),
        ({"rapl": {"root": "/x"}}, "energy.options.rapl: meter 'rapl' has no options, found root"),
    ],
)
def test_mistaken_options_are_configuration_errors(options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        choose_meters([Plug("plug", Domain("node")), rapl(CPU)], ["plug"], options=options)


def test_opening_opens_the_chosen_meters_with_what_they_announced():
    choices = choose_meters([rapl(CPU), estimate()], ["auto"])
    opened = open_meters(choices)
    assert [(m.name, m.quality, m.availability.domains) for m in opened] == [
        ("rapl", "measured", (CPU,)),
        ("estimate", "estimated", (Domain("dram"),)),
    ]
    assert [[sample.domain for sample in meter.session.read()] for meter in opened] == [[CPU], [Domain("dram")]]


def test_a_meter_that_cannot_be_opened_closes_those_before_it():
    first, second = rapl(CPU), ScriptedMeter("plug", GPU, fails=True)
    choices = choose_meters([first, second], ["rapl", "plug"])
    with pytest.raises(MeterError, match="plug broke"):
        open_meters(choices)
    assert first.sessions[0].num_closed == 1
