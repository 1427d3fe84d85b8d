"""Failure is a row: whatever an attributor does, each configuration has one outcome, and the others go on."""

import re

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny import N_TEST, N_TRAIN

from attriboard.attribution.executors import OwnProcess, ThisProcess
from attriboard.attribution.job import Folder, PluginSpec, Tokens
from attriboard.attribution.limits import Limits
from attriboard.attribution.results import Results
from attriboard.attribution.runner import Outcome, Runner
from attriboard.base.errors import InputError

# One method whose `mode` says how it misbehaves; every mode is a fit of its own.
MODES = """
class Misbehaving(Attributor):
    name = "misbehaving"
    hyperparameters = (
        Hyperparameter("mode", "well", source="here", type=str),
        Hyperparameter("scale", 1.0, source="here", stage="score", minimum=0.0),
    )

    def fit(self, context, mode):
        shape = (len(context.test), len(context.train))
        scores = torch.arange(shape[0] * shape[1]).float().view(shape)
        with Path(__file__).with_name("fits.txt").open("a") as file:
            print(mode, file=file)
        if mode == "raises":
            raise ValueError("a\\nlong\\t story \\udc80")
        if mode == "raises_nothing":
            raise ValueError
        if mode == "has_no_memory":
            raise MemoryError
        if mode == "does_not_apply":
            raise NotApplicableError("needs convolutions")
        if mode == "does_not_say_why":
            raise NotApplicableError("")
        if mode == "calls_exit":
            sys.exit(3)
        if mode == "prints_and_dies":
            print("about to die")
            sys.stdout.flush()
            os._exit(4)
        if mode == "is_killed":
            os.kill(os.getpid(), 9)
        if mode == "hangs":
            while True:
                time.sleep(1)
        if mode == "fills_memory":
            hoard = []
            while True:
                hoard.append(torch.ones(8 << 20))
        if mode == "has_a_child_that_fills_memory":
            code = "import time; hoard = [b'x' * (950 << 20)]; time.sleep(600)"
            subprocess.run([sys.executable, "-c", code])
        if mode == "talks_while_it_fills_memory":
            hoard = []
            while True:
                hoard.append(torch.ones(1 << 20))
                os.write(int(sys.argv[2]), b'{"event": "began", "configurations": [0]}\\n')
        if mode == "changes_inputs":
            context.train.inputs.zero_()
            context.test.targets.zero_()
        if mode == "leaves_a_hook":
            context.model.register_forward_hook(lambda *arguments: None)
        if mode == "changes_a_model_when_scoring":
            scores = next(iter(context.checkpoints[1].parameters.values()))
        if mode == "prints":
            for _ in range(200):
                print("x" * 10_000)
        return mode, scores

    def memory_need(self, context, mode):
        needs = {"declares_too_much": 48 * 10**15, "declares_a_gigabyte": 10**9}
        return {"the Hessian": needs[mode], "room for it": needs[mode] // 8} if mode in needs else None

    def work_need(self, context, mode, scale):
        return {"products": 4e18, "room": 1e10} if mode == "declares_years" and scale > 1 else None

    def score(self, state, scale):
        mode, scores = state
        if mode == "changes_a_model_when_scoring":
            scores.zero_()
            return torch.zeros(13, 45)
        scores = scores * scale
        if mode == "segfaults_at_scale_2" and scale == 2:
            ctypes.string_at(0)
        if mode == "raises_at_scale_2" and scale == 2:
            raise RuntimeError("no twos")
        if mode == "nan":
            return scores * float("nan")
        if mode == "nan_in_3_rows":
            scores[[1, 4, 5], 7] = float("nan")
        if mode == "wrong_shape":
            return scores.T
        if mode == "integers":
            return scores.long()
        if mode == "numpy":
            return scores.numpy()
        if mode == "none":
            return None
        if mode == "doubles":
            return scores.double().requires_grad_()
        if mode == "transposed_memory":
            return scores.T.contiguous().T
        return scores
"""
WELL = np.arange(N_TEST * N_TRAIN, dtype=np.float32).reshape(N_TEST, N_TRAIN)


def outcomes(job, **limits):
    return list(Runner(OwnProcess(Limits(**limits))).run(job))


def test_every_deliberate_failure_is_an_outcome_with_its_reason_and_spares_the_others(make_job, tmp_path):
    expected = {
        "well": None,
        "raises": r"error: ValueError: a long story \udc80",
        "raises_nothing": "error: ValueError: ",
        "has_no_memory": "out_of_memory: MemoryError",
        "does_not_apply": "not_applicable: needs convolutions",
        "does_not_say_why": "not_applicable: no reason given",
        "calls_exit": "error: SystemExit: 3",
        "nan": f"nan: all {N_TEST} rows have scores that are NaN or infinite",
        "nan_in_3_rows": None,
        "wrong_shape": f"shape: scores are ({N_TRAIN}, {N_TEST}), must be (n_test, n_train) = ({N_TEST}, {N_TRAIN})",
        "integers": "shape: scores are torch.int64, must be floating point; scores.float() makes them so",
        "numpy": "shape: score returned ndarray, must be a torch.Tensor",
        "none": "shape: score returned NoneType, must be a torch.Tensor",
        "doubles": None,
        "transposed_memory": None,
        "prints": None,
        "declares_a_gigabyte": None,
    }
    found = outcomes(make_job(MODES, *({"mode": mode} for mode in expected)))
    assert [outcome.index for outcome in found] == list(range(len(expected)))
    assert {outcome.hyperparameters["mode"]: outcome.reason for outcome in found} == expected
    assert (tmp_path / "fits.txt").read_text().split() == list(expected)
    by_mode = {outcome.hyperparameters["mode"]: outcome for outcome in found}
    for mode in ("well", "doubles", "transposed_memory", "prints"):
        assert by_mode[mode].scores.dtype == (np.float64 if mode == "doubles" else np.float32)
        np.testing.assert_array_equal(by_mode[mode].scores, WELL)
        assert by_mode[mode].fit_seconds >= 0
        assert by_mode[mode].score_seconds >= 0
        assert by_mode[mode].peak_bytes > 2**20
    assert np.flatnonzero(np.isnan(by_mode["nan_in_3_rows"].scores).any(axis=1)).tolist() == [1, 4, 5]
    assert all(outcome.scores is None for outcome in found if outcome.reason)


def test_what_declares_more_memory_than_there_is_fails_before_it_begins(make_job, tmp_path):
    job = make_job(MODES, {"mode": "declares_too_much"}, {"mode": "declares_a_gigabyte"}, {"mode": "well"})
    much, some, well = outcomes(job, bytes=1200 << 20)
    assert re.fullmatch(
        r"out_of_memory: needs 54,000,000\.0 GB \(the Hessian 48,000,000\.0 GB, room for it 6,000,000\.0 GB\); "
        r"\d\.\d GB are free",
        much.reason,
    )
    assert some.reason.startswith("out_of_memory: needs 1.1 GB (the Hessian 1.0 GB")
    assert well.reason is None
    assert (tmp_path / "fits.txt").read_text().split() == ["well"]


def test_what_declares_more_work_than_the_time_limit_allows_fails_before_it_begins(make_job, tmp_path):
    long = [{"mode": "declares_years", "scale": scale} for scale in (1.0, 2.0)]
    fits, refused = sorted(outcomes(make_job(MODES, *long), seconds=3600), key=lambda outcome: outcome.index)
    assert fits.reason is None
    rule = (
        r"timeout: needs at least ([\d,]+) s \(products 4\.0e\+18 operations, at ([\d,]+)·10⁹ a second\); "
        r"the limit is 3600 s"
    )
    seconds, speed = (float(one.replace(",", "")) for one in re.fullmatch(rule, refused.reason).groups())
    assert seconds == pytest.approx(4e18 / speed / 1e9, rel=0.6 / speed + 0.01)
    assert (tmp_path / "fits.txt").read_text().split() == ["declares_years"]
    assert outcomes(make_job(MODES, long[1]))[0].reason is None, "without a limit it may take years"


def test_a_changed_context_fails_what_changed_it_and_spares_the_others(make_job, tmp_path):
    expected = {
        "changes_inputs": "fit changed train.inputs",
        "leaves_a_hook": "fit changed the mode or hooks of the model",
        "changes_a_model_when_scoring": r"score changed checkpoints\[1\]\.0\.",
        "well": None,
    }
    found = list(Runner(ThisProcess(propagate=False)).run(make_job(MODES, *({"mode": mode} for mode in expected))))
    for outcome, (mode, change) in zip(found, expected.items(), strict=True):
        assert outcome.hyperparameters["mode"] == mode
        if change is not None:
            assert re.fullmatch(f"context_changed: {change}.*; work on copies, and remove hooks", outcome.reason)
    assert found[-1].reason is None
    np.testing.assert_array_equal(found[-1].scores, WELL)
    assert (tmp_path / "fits.txt").read_text().split() == list(expected)


def test_a_process_that_changed_its_context_is_left_and_a_new_one_does_the_rest(make_job):
    changed, well = outcomes(make_job(MODES, {"mode": "changes_inputs"}, {"mode": "well"}))
    assert changed.reason.startswith("context_changed: fit changed train.inputs")
    assert well.reason is None
    np.testing.assert_array_equal(well.scores, WELL)


def test_a_death_fails_its_own_configuration_and_a_new_process_does_the_rest(make_job, tmp_path):
    expected = [
        ({"mode": "well"}, None),
        ({"mode": "prints_and_dies"}, "crash: exit code 4; it last printed: about to die"),
        ({"mode": "is_killed"}, "out_of_memory: the process was killed from outside, most likely for its memory"),
        ({"mode": "segfaults_at_scale_2", "scale": 1.0}, None),
        ({"mode": "segfaults_at_scale_2", "scale": 2.0}, "crash: signal SIGSEGV"),
        ({"mode": "segfaults_at_scale_2", "scale": 3.0}, None),
    ]
    found = outcomes(make_job(MODES, *(configuration for configuration, _ in expected)))
    assert [outcome.index for outcome in found] == list(range(len(expected)))
    assert [outcome.hyperparameters for outcome in found] == [{"scale": 1.0} | values for values, _ in expected]
    assert [outcome.reason for outcome in found] == [reason for _, reason in expected]
    assert [outcome.scores is not None for outcome in found] == [reason is None for _, reason in expected]
    fits = (tmp_path / "fits.txt").read_text().split()
    assert fits[:3] == [values["mode"] for values, _ in expected[:3]], "nothing that is done is fitted again"
    assert fits[3:] == ["segfaults_at_scale_2"] * 2, "what is left of a fit needs it again in the new process"


def test_what_a_new_worker_is_told_to_run_again_is_one_outcome_all_the_same(make_job, tmp_path):
    selector = tmp_path / "stubborn.py"
    selector.write_text(
        "from attriboard.contracts import Choice, Selector\n\n\n"
        "class Stubborn(Selector):\n"
        "    name = 'stubborn'\n    hyperparameter = 'scale'\n    needs_spectrum = False\n\n"
        "    def select(self, evidence):\n        return Choice({'scale': 1.0})\n"
    )
    mode = {"mode": "segfaults_at_scale_2"}
    job = make_job(
        MODES,
        *(mode | {"scale": scale} for scale in (1.0, 2.0, 3.0)),
        selectors=(PluginSpec(name="stubborn", origin="file", location=str(selector)),),
    )
    found = [event for event in outcomes(job) if isinstance(event, Outcome)]
    assert [outcome.index for outcome in found] == [0, 1, 2]


def test_a_fit_serves_all_its_configurations_and_its_failure_fails_them_all(make_job, tmp_path):
    grid = [
        {"mode": mode, "scale": scale} for scale in (1.0, 2.0, 3.0) for mode in ("well", "raises", "raises_at_scale_2")
    ]
    found = {outcome.index: outcome for outcome in outcomes(make_job(MODES, *grid))}
    assert (tmp_path / "fits.txt").read_text().split() == ["well", "raises", "raises_at_scale_2"]
    assert sorted(found) == list(range(9))
    assert [found[i].hyperparameters for i in range(9)] == grid
    for index, configuration in enumerate(grid):
        match configuration:
            case {"mode": "raises"}:
                assert found[index].reason.startswith("error: ValueError")
            case {"mode": "raises_at_scale_2", "scale": 2.0}:
                assert found[index].reason == "error: RuntimeError: no twos"
            case {"scale": scale}:
                np.testing.assert_array_equal(found[index].scores, WELL * np.float32(scale))


def test_time_limit_ends_a_hanging_configuration_and_the_others_go_on(make_job):
    found = outcomes(make_job(MODES, {"mode": "hangs"}, {"mode": "well"}), seconds=12)
    assert [outcome.reason for outcome in found] == ["timeout: not finished after 12 s", None]


BOMBS = ("fills_memory", "has_a_child_that_fills_memory", "talks_while_it_fills_memory")


def test_memory_limit_counts_all_that_a_configuration_started_and_the_others_go_on(make_job):
    configurations = [{"mode": mode} for mode in ("well", *BOMBS, "nan_in_3_rows")]
    found = outcomes(make_job(MODES, *configurations), bytes=900 << 20, seconds=60)
    assert [outcome.index for outcome in found] == list(range(5))
    assert (found[0].reason, found[-1].reason) == (None, None)
    for outcome in found[1:-1]:
        assert re.fullmatch(r"out_of_memory: [\d,]+ MiB resident, the limit is 900 MiB", outcome.reason)
        assert 900 <= int(outcome.reason.split()[1].replace(",", "")) < 2500, "it was ended soon after"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("sys.exit(7)", "its process ended before any result; crash: exit code 1; it last printed: SystemExit: 7"),
        (MODES, "misbehaving has no hyperparameter 'lambda'; it has: mode, scale"),
    ],
    ids=["exits", "has_other_hyperparameters"],
)
def test_code_that_cannot_start_is_the_callers_error(make_job, source, message):
    with pytest.raises(InputError, match=message):
        outcomes(make_job(source, {}, {"lambda": 1.0}))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def broken(:", r"importing it raised SyntaxError: .*my_method.py, line \d"),
        ("raise OSError('no license')", "importing it raised OSError: no license"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("X = 1", "must define exactly one Attributor subclass, found none$"),
        (
            "class One(Attributor):\n    name = 'one'\n    def fit(self, context):\n        return 1",
            "exactly one Attributor subclass, found none; One lacks score$",
        ),
        (
            MODES + "\nclass Second(Misbehaving):\n    name = 'second'",
            "must define exactly one Attributor subclass, found Misbehaving, Second$",
        ),
        (MODES.replace('name = "misbehaving"', ""), "Misbehaving.name = None: must be text"),
        (MODES.replace('"misbehaving"', '"My Method"'), "'My Method': must be 1 to 64 lower-case letters, digits"),
        (MODES.replace('stage="score"', "stage='score', maximum=0.5"), "scale = 1.0: must be at most 0.5"),
    ],
    ids=["syntax", "raises", "import", "nothing", "abstract", "two", "nameless", "unusable_name", "bad_default"],
)
def test_a_plugin_file_that_is_no_attributor_says_why(make_job, source, message):
    with pytest.raises(InputError, match=message):
        make_job(source).attributor.load_attributor()


def test_numbers_that_are_none_reach_the_one_who_judges_them(make_job):
    job = make_job(MODES, {"scale": float("nan")}, {"scale": float("inf")})
    read = type(job).model_validate_json(job.model_dump_json())
    method = job.attributor.load_attributor()
    for configuration, shown in zip(read.configurations, ("nan", "inf"), strict=True):
        with pytest.raises(InputError, match=f"scale = {shown}: must be finite"):
            method.configure(configuration)


def test_an_unusable_device_is_the_callers_error(make_job):
    with pytest.raises(InputError, match="device 'abacus': PyTorch cannot use it: "):
        outcomes(make_job(MODES, device="abacus"))


LIAR = """
from attriboard.attribution import worker


worker._Run._tokens = lambda self, index, *rest: self.folder.tokens(index).write_bytes(b"junk")


class Liar(Attributor):
    name = "liar"

    def fit(self, context):
        Path(sys.argv[1], "scores", "tokens-0.safetensors").write_bytes(b"junk")
        return -context.test.inputs @ context.train.inputs.T

    def score(self, state):
        return state

    def directions(self, context, state, tests):
        return []
"""


def test_what_is_no_scores_of_tokens_fails_its_configuration_and_is_read_only_where_asked_for(make_job):
    job = make_job(LIAR)
    (plain,) = outcomes(job)
    assert (plain.reason, plain.tokens) == (None, {})
    (asked,) = outcomes(job.model_copy(update={"tokens": Tokens(tests=(0,), k=1)}))
    assert asked.scores is None
    assert asked.reason.startswith("crash: it reported scores and left none that can be read: ")
    assert "holds no scores of tokens" in asked.reason


def test_a_link_for_scores_of_tokens_is_not_followed_where_nobody_trusts_it(make_job, tmp_path):
    folder = Folder(tmp_path / "worker")
    folder.results.mkdir(parents=True)
    tokens = {"examples": np.array([3]), "scores": np.array([[0.5, -1.0]])}
    save_file(tokens, tmp_path / "elsewhere")
    folder.tokens(0).symlink_to(tmp_path / "elsewhere")
    job = make_job(LIAR, tokens=Tokens(tests=(0,), k=1))
    with pytest.raises(OSError, match="symbolic links"):
        Results(folder, job, trusted=False).tokens(0)
    folder.tokens(0).unlink()
    save_file(tokens, folder.tokens(0))
    assert {at: scores.tolist() for at, scores in Results(folder, job, trusted=False).tokens(0).items()} == {
        3: [0.5, -1.0]
    }
