"""From what was typed to runs: grids, seeds, settings, ids, and every problem of a sweep at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from benchmark.errors import UserError
from benchmark.plan.spec import RunSpec
from benchmark.plan.sweep import Sweep, plan
from benchmark.plan.typed import parse_assignments, parse_bracketed, parse_seeds, split_plugins
from benchmark.registry import DATASETS, METHODS
from benchmark.settings import label, split_list

METHOD = """
from benchmark.method import Method, Reference
from benchmark.model import concat_net

class Mine(Method):
    reference = Reference("test")

    class Config(Method.Config):
        alpha: float = 0.3

    def build_net(self, task):
        return concat_net(task)
"""


@pytest.fixture
def plan_of(blobs):
    """Plan a sweep on the tiny data set."""

    def make(*methods: str, datasets=(blobs,), seeds=(0,), **rest):
        return plan(Sweep(methods, datasets, seeds, **rest))

    return make


@pytest.fixture
def id_of(plan_of):
    """Return the id of the only run of a sweep."""

    def make(*methods: str, **rest) -> str:
        (run,) = plan_of(*methods, **rest).runs
        return run.id

    return make


# --- reading what was typed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "name", "grid"),
    [
        ("ogm", "ogm", [{}]),
        ("ogm[alpha=0]", "ogm", [{"alpha": 0}]),
        ("ogm[alpha=0.1,0.3]", "ogm", [{"alpha": 0.1}, {"alpha": 0.3}]),
        ("m[a=1,2,b=x]", "m", [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]),
        ("m[a=1,2,b=3,4]", "m", [{"a": 1, "b": 3}, {"a": 1, "b": 4}, {"a": 2, "b": 3}, {"a": 2, "b": 4}]),
        ("m[window=[1,2]]", "m", [{"window": [1, 2]}]),
        ("m[window=[1,2],[3,4]]", "m", [{"window": [1, 2]}, {"window": [3, 4]}]),
        ("m[ a = 1 ]", "m", [{"a": 1}]),
        ("./dir/mine.py:Mine[a=1]", "./dir/mine.py:Mine", [{"a": 1}]),
    ],
)
def test_brackets_give_a_name_and_a_grid(token, name, grid):
    assert parse_bracketed(token) == (name, grid)


@pytest.mark.parametrize("token", ["ogm[alpha=0.1", "ogm[alpha=[1,2]", "ogm[0.1]", "ogm[alpha=1]x"])
def test_brackets_that_make_no_sense_are_refused(token):
    with pytest.raises(UserError) as caught:
        parse_bracketed(token)
    assert token in str(caught.value)


@pytest.mark.parametrize("folder", ["my,folder", "a,b[1,2]", "open[, here", "a:b", "x.py,y"])
def test_a_plugin_is_found_whatever_its_folder_is_called(folder, tmp_path):
    path = tmp_path / folder / "mine.py"
    path.parent.mkdir()
    path.write_text(METHOD)
    typed = [f"{path}[alpha=0.1,0.2]", f"{path}:Mine", str(path), "no/such/file.py", "ogm[alpha=0.1,0.3]"]
    names = split_plugins(",".join(typed))
    assert names == typed
    assert [parse_bracketed(name)[0] for name in names[:3]] == [str(path), f"{path}:Mine", str(path)]
    assert {METHODS.find(parse_bracketed(name)[0]).source for name in names[:3]} == {str(path)}


def test_a_list_is_split_outside_brackets_only():
    parts = ["ogm[alpha=0.1,0.3]", "concat", "m[w=[1,2],b=3]"]
    assert split_list(", ".join(parts) + ",,") == parts


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("0-4", [0, 1, 2, 3, 4]), ("5", [5]), ("0,1,7", [0, 1, 7]), ("0-2,7", [0, 1, 2, 7]), ("1,0-2", [1, 0, 2])],
)
def test_seeds_are_read_in_order_each_once(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", ",", "4-2", "a", "1.5", "0-", "-", "1,x"])
def test_seeds_that_make_no_sense_are_refused_with_an_example(text):
    with pytest.raises(UserError, match="0-4"):
        parse_seeds(text)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["0-99999999999", "0-100000", f"0,{2**63}", "0-99999,0-99999", "0-" + "9" * 4000])
def test_seeds_are_refused_with_their_bound_at_once(text):
    with pytest.raises(UserError, match="at most 100000 seeds"):
        parse_seeds(text)
    assert len(parse_seeds("0-99999")) == 100_000


def test_assignments_nest_at_dots_and_keep_types():
    parsed = parse_assignments(["ogm.alpha=0", "protocol.optimizer.lr=1e-3", "protocol.optimizer.kind=adam", "d.x=a=b"])
    assert parsed == {"ogm": {"alpha": 0}, "protocol": {"optimizer": {"lr": 0.001, "kind": "adam"}}, "d": {"x": "a=b"}}


def test_every_malformed_assignment_is_told_at_once():
    with pytest.raises(UserError) as caught:
        parse_assignments(["alpha=1", "ogm.alpha", "ogm.alpha=1", ".x=1"])
    assert len(caught.value.problems) == 3


def test_an_assignment_below_a_value_is_refused_in_words():
    with pytest.raises(UserError, match=r"optimizer"):
        parse_assignments(["protocol.optimizer=sgd", "protocol.optimizer.lr=1"])


def test_a_label_parses_back_to_what_it_was_made_from():
    changed = {"alpha": 0.0, "name": "paper", "flag": False, "window": [1, 2], "none": None}
    assert parse_bracketed(label("m", changed)) == ("m", [changed])


def test_presets_apply_to_their_data_set_only_when_asked_for_and_what_was_typed_wins(plan_of, plugin, blobs):
    other = plugin("other", "from benchmark.check.synthetic import Blobs\nclass Other(Blobs):\n    about = 'other'\n")
    mine = plugin("mine", METHOD.replace("class Config", "presets = {'other': {'alpha': 0.8}}\n\n    class Config"))

    def alphas(method, **rest):
        runs = plan_of(method, datasets=(blobs, other), **rest).runs
        return {run.dataset.name: run.method.config["alpha"] for run in runs}

    assert alphas(mine) == {"synthetic": 0.3, "other": 0.3}
    assert alphas(mine, presets=True) == {"synthetic": 0.3, "other": 0.8}
    assert alphas(f"{mine}[alpha=0.5]", presets=True) == {"synthetic": 0.5, "other": 0.5}


def test_a_sweep_is_methods_by_data_sets_by_seeds(plan_of, plugin, blobs):
    other = plugin("other", "from benchmark.check.synthetic import Blobs\nclass Other(Blobs):\n    about = 'other'\n")
    runs = plan_of("concat", "late_sum", datasets=(blobs, other), seeds=(0, 1)).runs
    found = {(run.method.name, run.dataset.name, run.seed) for run in runs}
    assert found == {(m, d, s) for m in ("concat", "late_sum") for d in ("synthetic", "other") for s in (0, 1)}
    assert len({run.id for run in runs}) == len(runs) == 8


def test_a_grid_gives_a_run_for_each_point_and_duplicates_are_planned_once(plan_of):
    runs = plan_of("late_sum[hidden=2,4]", "late_sum[hidden=4]", "late_sum", "late_sum").runs
    assert [run.method.config["hidden"] for run in runs] == [2, 4, None]


def test_a_setting_spelled_out_at_its_default_is_the_same_run(id_of):
    assert id_of("late_sum[hidden=null]") == id_of("late_sum")


def test_zero_given_on_the_command_line_stays_zero(plan_of):
    (run,) = plan_of("ogm", settings=["ogm.alpha=0"]).runs
    assert run.method.config["alpha"] == 0.0
    assert run.method.label == "ogm[alpha=0.0]"


def test_brackets_win_over_set(plan_of):
    runs = plan_of("ogm[alpha=0.1]", "ogm", settings=["ogm.alpha=0.2"]).runs
    assert [run.method.config["alpha"] for run in runs] == [0.1, 0.2]


def test_a_bare_name_that_stands_for_several_runs_gives_one_per_modality(plan_of, blobs):
    runs = plan_of("unimodal", datasets=(f"{blobs}[num_modalities=3]",)).runs
    assert [run.method.config["modality"] for run in runs] == ["audio", "video", "text"]
    (run,) = plan_of("unimodal[modality=video]").runs
    assert run.method.config["modality"] == "video"


def test_all_stands_for_every_known_method(plan_of):
    planned = plan_of("all")
    named = {run.method.name for run in planned.runs}
    named |= {title.partition("[")[0] for title, _, _ in planned.unsupported}
    assert named == set(METHODS.known())


def test_what_is_unsupported_is_listed_once_with_its_reason_and_not_planned(plan_of):
    planned = plan_of("unimodal[modality=smell]", "concat", seeds=(0, 1))
    assert {run.method.name for run in planned.runs} == {"concat"}
    ((method, dataset, reason),) = planned.unsupported
    assert (method, dataset) == ("unimodal[modality=smell]", "synthetic")
    assert "audio, video" in reason


def test_every_problem_of_a_sweep_is_told_at_once(plan_of, blobs):
    with pytest.raises(UserError) as caught:
        plan_of(
            "concta", "late_sum[hiden=3]", datasets=(blobs, "nonsense"), seeds=(), protocol="unifed",
            settings=["nobody.alpha=1", "broken"],
        )  # fmt: skip
    said = [str(problem) for problem in caught.value.problems]
    for word in ("concta", "hiden", "nonsense", "--seeds", "unifed", "nobody", "broken"):
        assert sum(word in line for line in said) == 1, (word, said)


def test_a_bad_recipe_and_a_bad_setting_are_told_together(plan_of):
    with pytest.raises(UserError) as caught:
        plan_of("late_sum[hidden=x]", recipe={"epochs": 0})
    said = str(caught.value)
    assert "epochs" in said
    assert "hidden" in said


def test_the_id_changes_with_everything_that_changes_the_numbers(id_of, blobs):
    changed = {
        "hyperparameter": id_of("ogm[alpha=0.1]"), "method": id_of("concat"), "seed": id_of("ogm", seeds=(1,)),
        "protocol": id_of("ogm", protocol="ogm2022"), "epochs": id_of("ogm", recipe={"epochs": 7}),
        "rate": id_of("ogm", settings=["protocol.optimizer.lr=0.5"]),
        "data set config": id_of("ogm", datasets=(f"{blobs}[noise=0.5]",)), "nothing": id_of("ogm"),
    }  # fmt: skip
    assert len(set(changed.values())) == len(changed), changed


def test_the_id_changes_with_the_fingerprint_of_the_data(id_of, monkeypatch, plugin):
    source = "import os\nfrom benchmark.check.synthetic import Blobs\n"
    source += "class Mine(Blobs):\n    def fingerprint(self):\n        return os.environ['MARK']\n"
    path = plugin("data", source)
    ids = [monkeypatch.setenv("MARK", mark) or id_of("concat", datasets=(path,)) for mark in ("one", "two", "one")]
    assert ids[0] == ids[2] != ids[1]


def test_the_id_changes_with_the_split_and_with_pretrained_weights(id_of, plan_of, monkeypatch, plugin):
    source = (
        "import os\nimport numpy as np\nfrom benchmark.data import Split\nfrom benchmark.check.synthetic import Blobs\n"
    )
    source += "class Mine(Blobs):\n    def weights(self):\n        return {'audio': os.environ['MARK']}\n"
    path = plugin("data", source)
    ids = [monkeypatch.setenv("MARK", mark) or id_of("concat", datasets=(path,)) for mark in ("one", "two", "one")]
    assert ids[0] == ids[2] != ids[1]
    assert id_of("concat", recipe={"valid_share": 0.2}) != id_of("concat")
    other = "    def split(self, samples, share):\n"
    other += "        return Split(np.arange(90), np.arange(90, 100), np.arange(100, 150))\n"
    splits = {plan_of("concat", datasets=(made,)).runs[0].split for made in (path, plugin("split", source + other))}
    assert len(splits) == 2


def test_the_split_is_measured_once_and_then_known_without_loading(plan_of, plugin, monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    source = "import pathlib\nfrom benchmark.check.synthetic import Blobs\nclass Mine(Blobs):\n    def load(self):\n"
    source += f"        pathlib.Path({str(tmp_path / 'loads')!r}).open('a').write('x')\n        return super().load()\n"
    path = plugin("data", source)
    splits = {plan_of("concat", datasets=(path,)).runs[0].split for _ in range(3)}
    assert len(splits) == 1
    assert (tmp_path / "loads").read_text() == "x"


def test_a_protocol_sets_a_data_set_and_what_the_user_says_wins(plan_of, blobs, tmp_path):
    protocol = tmp_path / "mine.yaml"
    recipe = {"epochs": 1, "batch_size": 16, "optimizer": {"kind": "sgd", "lr": 0.1}}
    settings = {"synthetic": {"noise": 0.5, "num_classes": 4}}
    content = {"name": "mine", "about": "made up", "recipe": recipe, "data": settings}
    protocol.write_text(yaml.safe_dump(content))
    (spec,) = plan_of("concat", protocol=str(protocol), datasets=(f"{blobs}[noise=0.7]",)).runs
    assert spec.dataset.config["noise"] == 0.7
    assert spec.dataset.config["num_classes"] == 4
    protocol.write_text(yaml.safe_dump({**content, "data": {"synthetic": {"nois": 0.5}}}))
    with pytest.raises(UserError, match=r"nois.*noise"):
        plan_of("concat", protocol=str(protocol))


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("    reference", "    # a comment\n    reference", True),
        ("class Mine(Method):", 'class Mine(Method):\n    """Docstring."""', True),
        ("return concat_net(task)", "return concat_net(\n            task\n        )", True),
        ("concat_net(task)", "concat_net(task, )", True),
        ("return concat_net(task)", "net = concat_net(task)\n        return net", False),
        ("alpha: float = 0.3", "alpha: float = 0.3\n        beta: float = 0.1", False),
    ],
)
def test_the_id_changes_with_what_the_code_does_and_not_with_how_it_is_written(id_of, tmp_path, old, new, same):
    ids = []
    for folder, text in (("one", METHOD), ("other", METHOD.replace(old, new))):
        path = tmp_path / folder / "mine.py"
        path.parent.mkdir()
        path.write_text(text)
        ids.append(id_of(str(path)))
    assert (ids[0] == ids[1]) is same


def test_the_id_does_not_depend_on_where_the_data_is(id_of):
    assert id_of("concat", data_root=Path("/one")) == id_of("concat", data_root=Path("/two"))


def test_the_id_changes_with_the_version_of_the_core_of_the_method_and_of_the_data_set(id_of, monkeypatch, plugin):
    path = plugin("data", "from benchmark.check.synthetic import Blobs\nclass Mine(Blobs):\n    about = 'mine'\n")
    ids = [id_of("ogm", datasets=(path,))]
    for target, name in (
        ("benchmark.plan.sweep", "NUMERICS"),
        (METHODS.find("ogm").load(), "version"),
        (DATASETS.find(path).load(), "version"),
    ):
        with monkeypatch.context() as patch:
            if isinstance(target, str):
                patch.setattr(f"{target}.{name}", 2)
            else:
                patch.setattr(target, name, 2)
            ids.append(id_of("ogm", datasets=(path,)))
    assert len(set(ids)) == 4
    assert id_of("ogm", datasets=(path,)) == ids[0]


def test_the_id_of_a_method_made_of_others_changes_with_their_versions(id_of, monkeypatch):
    before = {token: id_of(token) for token in ("federated", "federated[local=ogm]")}
    monkeypatch.setattr(METHODS.find("ogm").load(), "version", 2)
    assert id_of("federated") == before["federated"]
    assert id_of("federated[local=ogm]") != before["federated[local=ogm]"]


def test_a_spec_survives_being_written_to_its_file(plan_of):
    (run,) = plan_of("ogm", settings=["ogm.alpha=0"]).runs
    again = RunSpec.model_validate(yaml.safe_load(run.to_yaml()))
    assert again == run
    assert again.id == run.id


def test_the_folder_holds_data_set_method_and_seed_and_ends_in_the_id(plan_of):
    (run,) = plan_of("ogm[alpha=0.1]", seeds=(3,)).runs
    assert run.folder(Path("out")) == Path("out/synthetic/ogm") / run.id[:2] / f"s3-{run.id}"


def test_bad_settings_of_methods_are_told_though_no_data_set_can_be_used():
    sweep = Sweep(["ogm[alpah=0.1]", "aug[lambda_=1.5]", "unimodal"], ["dialpd"], [0])
    with pytest.raises(UserError) as caught:
        plan(sweep)
    told = [str(problem) for problem in caught.value.problems]
    assert len(told) == 3, told
    assert all(any(word in text for text in told) for word in ("'alpah'", "lambda_", "'dialpd'"))
