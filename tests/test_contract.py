"""The contract of every policy class of every registered study, found automatically."""

from __future__ import annotations

import inspect
import pickle
import pkgutil
from importlib import import_module

import pytest

from cloudchamber.core.errors import InputError
from cloudchamber.core.messages import encode
from cloudchamber.core.parallel import run_task
from cloudchamber.core.policy import Parameters, Policy, clone, policy_classes
from cloudchamber.core.registry import load_policy, load_study, study_names, verbs_of
from cloudchamber.core.study import rng_of

STUDIES = [load_study(name) for name in study_names()]
MAKERS = [(study, name) for study in STUDIES for name in study.policies()]


def _import_all_policies():
    for study in STUDIES:
        package = import_module(type(study).__module__.rpartition(".")[0] + ".policies")
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            import_module(module.name)


_import_all_policies()
CLASSES = policy_classes()
PARAMETERS = policy_classes(Parameters)


def test_every_policy_class_belongs_to_a_study():
    registered = {type(study.policies()[name]()) for study, name in MAKERS}
    assert set(CLASSES) - {Policy} == registered


@pytest.mark.parametrize("cls", PARAMETERS, ids=lambda cls: cls.__name__)
class TestParameters:
    def test_repr_and_clone_round_trip(self, cls):
        made = cls()
        names = vars(import_module(cls.__module__)) | {each.__name__: each for each in PARAMETERS}
        again = eval(repr(made), dict(names))
        assert repr(again) == repr(made) == repr(clone(made))
        assert clone(made).get_params().keys() == made.get_params().keys()

    def test_constructor_only_stores_its_parameters(self, cls):
        made = cls()
        for name, value in made.get_params().items():
            assert value is inspect.signature(cls.__init__).parameters[name].default
        assert set(vars(made)) == set(made.get_params())

    def test_every_parameter_has_a_rule_and_a_documented_default(self, cls):
        params = cls().get_params()
        assert set(cls._constraints) == set(params)
        for name in params:
            assert f"{name} :" in (cls.__doc__ or ""), f"{cls.__name__} does not document {name}"

    def test_wrong_parameters_are_refused_by_name_with_what_is_allowed(self, cls):
        with pytest.raises(InputError, match="no parameter 'nonsense'"):
            cls().set_params(nonsense=1)
        for name, rule in cls._constraints.items():
            bad = cls().set_params(**{name: object()})
            with pytest.raises(InputError, match=f"{name} must be ") as caught:
                bad.validate()
            assert str(rule) in str(caught.value)

    def test_pickles(self, cls):
        assert repr(pickle.loads(pickle.dumps(cls()))) == repr(cls())


@pytest.mark.parametrize(("study", "name"), MAKERS, ids=lambda each: each if isinstance(each, str) else each.name)
class TestBuiltinPolicies:
    def test_constructor_pickles_and_has_the_verbs(self, study, name):
        policy = pickle.loads(pickle.dumps(study.policies()[name]))()
        assert all(callable(getattr(policy, verb)) for verb in verbs_of(study.protocol))

    def test_can_be_named_by_its_repr(self, study, name):
        policy = study.policies()[name]()
        assert repr(load_policy(study, repr(policy))()) == repr(policy)

    def test_same_seed_same_outcome(self, study, name):
        maker = {name: study.policies()[name]}
        workload = study.workloads()["smoke"]
        first, second = (run_task(study, maker, workload, 1)[1][0].outcome for _ in range(2))
        timed = {metric.name for metric in study.metrics if metric.is_timed}
        assert {k: v for k, v in first.metrics.items() if k not in timed} == {k: v for k, v in second.metrics.items() if k not in timed}
        assert encode(dict(first.series)) == encode(dict(second.series))

    def test_smoke_trial_is_valid(self, study, name):
        trial = run_task(study, {name: study.policies()[name]}, study.workloads()["smoke"], 0)[1][0]
        assert trial.outcome.violations == ()

    def test_used_policy_can_be_used_again(self, study, name):
        """What was learned in one trial must not change the next."""
        workload, policy = study.workloads()["smoke"], study.policies()[name]()
        fresh = dict(study.trial(study.policies()[name](), workload, 1).metrics)
        study.trial(policy, workload, 0)
        again = dict(study.trial(policy, workload, 1).metrics)
        for metric in study.metrics:
            if metric.is_timed:
                del fresh[metric.name], again[metric.name]
        assert again == fresh


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
class TestStudies:
    def test_declares_what_a_reader_needs(self, study):
        assert study.title and study.papers and study.metrics and study.floor and study.claims
        assert set(study.floor) <= set(study.policies())
        assert study.name in (type(study).__doc__ or "") or type(study).__doc__

    def test_has_a_generated_smoke_workload(self, study):
        smoke = study.workloads()["smoke"]
        assert smoke.is_generated and smoke.is_optional

    def test_workloads_are_keyed_by_their_names(self, study):
        assert all(name == workload.name for name, workload in study.workloads().items())

    def test_bound_is_attained_and_valid(self, study):
        bound = study.bound(study.workloads()["smoke"], 0)
        if bound is not None and bound.is_exact:
            assert bound.outcome is not None and not bound.outcome.is_void

    def test_crashing_policy_is_void_not_a_crash(self, study):
        class Crashing:
            def __getattr__(self, verb):
                def fail(*args):
                    raise RuntimeError("no idea")

                return fail

        trial = run_task(study, {"bad": Crashing}, study.workloads()["smoke"], 0)[1][0]
        assert trial.outcome.is_void and "no idea" in trial.outcome.violations[0]


def test_trials_of_different_seeds_and_workloads_have_different_randomness():
    draws = {rng_of("spot", name, seed).random() for name in ("a", "b") for seed in range(10)}
    assert len(draws) == 20
    assert rng_of("spot", "a", 0).random() == rng_of("spot", "a", 0).random()


def test_importing_the_package_loads_nothing_heavy():
    import subprocess
    import sys

    code = "import cloudchamber, sys; print([m for m in ('numpy', 'numba', 'typer', 'joblib', 'pandas', 'msgspec') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
