"""The literature's protocols are the literature's: each fact of a source is in the protocol, or told to differ."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from benchmark.protocol import load_protocol, protocol_names
from benchmark.records import scan
from benchmark.registry import DATASETS, REPORTS
from benchmark.report import compare
from benchmark.settings import parse_settings

FACTS = yaml.safe_load((Path(__file__).parent / "protocol_facts.yaml").read_text())
CASES = [(protocol, data) for protocol, sets in FACTS.items() for data in sets]


def ours(protocol, data):
    """Return what a protocol sets on a data set: {"recipe": .., "data": .., "weights": {modality: file}}."""
    found = {"recipe": protocol.resolve(data, {}, {}).model_dump(), "data": {}, "weights": {}, "ours": {"tie": "first"}}
    found["recipe"].setdefault("init", "default")  # left out of a dump
    if data != "any":
        settings = parse_settings(DATASETS.find(data).load().Config, protocol.data.get(data, {}), data)
        found["data"] = settings.model_dump()
        encoders = found["data"].get("encoders") or {}
        found["weights"] = {m: one["weights"] for m, one in encoders.items() if one and one.get("weights")}
    return found


def look_up(found, path):
    for key in path.split("."):
        found = found[key]
    return found


@pytest.mark.parametrize(("name", "data"), CASES)
def test_every_fact_of_the_source_is_followed_or_told(name, data):
    protocol = load_protocol(name)
    found = ours(protocol, data)
    differing = {
        f"{data}.{fact}"
        for fact, (wanted, path) in FACTS[name][data].items()
        if path is None or look_up(found, path) != wanted
    }
    told = {key for key in protocol.differs if key.partition(".")[0] == data}
    assert differing == told


def test_every_protocol_of_the_literature_has_facts_and_a_source_and_names_known_data_sets():
    literature = {name for name in protocol_names() if load_protocol(name).source}
    assert literature == set(FACTS) == {"aug2025", "ogm2022", "lfm2024", "fuml2025"}
    for name in literature:
        protocol = load_protocol(name)
        named = {*protocol.datasets, *protocol.data, *(key.partition(".")[0] for key in protocol.differs if "." in key)}
        assert named - {"any"} <= set(DATASETS.known())


@pytest.mark.parametrize(
    ("data", "words"), [("ksounds", "one crop for all frames"), ("mosi", "no code for data sets other")]
)
def test_what_differs_is_printed_under_the_table(made_up, tmp_path, data, words):
    for method in ("concat", "ogm"):
        made_up(method, dataset=data, protocol="aug2025")
        made_up(method, dataset=data, protocol="unified")
    comparisons, _ = compare(scan(tmp_path / "runs"))
    for name in ("comparison", "protocols"):
        files = REPORTS.find(name).load()().build(comparisons)
        texts = [one.content.decode() for one in files if one.name.endswith(".md")]
        assert any(words in text for text in texts), name
        assert not any(words in text for text in texts if "aug2025" not in text)
