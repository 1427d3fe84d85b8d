"""The child's side of selection: gathers the evidence of a fitted attributor and lets selectors choose.

A method that offers its spectrum is asked for it. One that has no cheap spectrum gets the λ found on a *donor*: another
attributor's spectrum on the same models, of the matrix that λ is added to, Fisher's or the Hessian. Such a choice is
marked as transferred; where no selector needs a spectrum, or what they chose on the donor's is known, no donor is
fitted. Selectors see coefficients of calibration points alone.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from attriboard.attribution.job import Donated, Selected
from attriboard.attribution.plugins import code_sha256
from attriboard.base.errors import AttriboardError, NotApplicableError
from attriboard.contracts.attributor import Attributor, Context
from attriboard.contracts.card import TaskCard
from attriboard.contracts.hyperparameter import HyperparameterValue
from attriboard.contracts.selector import REGULARIZATION, Choice, Evidence, Selector
from attriboard.contracts.spectrum import Spectrum
from attriboard.scoring.split import split_test_points
from attriboard.toolkit.memory import require_memory
from attriboard.toolkit.similarity import squared_lengths

GRADIENTS = 1000
"""Training examples, at most, whose gradients tell how gradients fell in training."""


@dataclass(frozen=True)
class _Spectra:
    """What there is for selectors: spectra on calibration points, what was chosen on them before, or why neither."""

    spectra: tuple[Spectrum, ...] = ()
    donor: str | None = None  # whose they are, if not the method's own
    seconds: float = 0.0  # of the donor's fit
    known: Mapping[str, Donated] = field(default_factory=dict)  # selector → its choice, instead of the spectra
    failure: str | None = None


@dataclass(frozen=True)
class _Squares:
    """Mean squared length of training gradients by epoch, or why it is not known."""

    by_epoch: Mapping[int, float] = field(default_factory=dict)
    seconds: float = 0.0
    failure: str | None = None


@dataclass
class Chooser:
    """Runs selectors on fitted states.

    Args:
        selectors: to run.
        card: of the task.
        context: of the run.
        attributor: whose hyperparameters are chosen.
        donor: whose spectrum is used where the attributor has none.
        known: what selectors chose on donors' spectra before, the newest first.
        candidates: hyperparameter → values to choose from; the attributor's own grids where absent.
    """

    selectors: Sequence[Selector]
    card: TaskCard
    context: Context
    attributor: Attributor
    donor: type[Attributor] | None
    known: Sequence[Donated]
    candidates: Mapping[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        split = self.card.split
        points = split_test_points(len(self.context.test), split.calibration, split.seed)
        self._calibration = torch.from_numpy(points.calibration)
        self._donors: dict[HyperparameterValue, _Spectra] = {}  # by epoch
        self._squares: _Squares | None = None

    def choose(self, configuration: Mapping[str, HyperparameterValue], state: Any) -> list[Selected]:
        """Let every selector choose, starting from a fitted configuration; refusals are choices with a reason."""
        found = _Spectra()
        try:
            found = self._spectra(configuration, state)
        except Exception as error:
            found = _Spectra(failure=_text(error))
        evidence = Evidence(
            configuration=configuration,
            candidates=self._candidates(),
            spectra=found.spectra,
            recipe=self.card.recipe,
            n_train=len(self.context.train),
            seed=self.context.seed,
            gradient_squares=self._measured().by_epoch,
        )
        return [self._choose(selector, evidence, found) for selector in self.selectors]

    def _choose(self, selector: Selector, evidence: Evidence, found: _Spectra) -> Selected:
        started = time.perf_counter()
        candidates = evidence.candidates.get(selector.hyperparameter, ())
        choice, values, reason = Choice({}), {}, None
        known = found.known.get(selector.name)
        try:
            chooses = selector.hyperparameter == REGULARIZATION and selector.name != "default"
            if chooses and REGULARIZATION not in evidence.configuration:
                raise NotApplicableError("the method has no regularization to choose")
            if selector.needs_spectrum and not found.spectra and not known:
                missing = "the method has no spectrum, and no regularization that one of another method could be for"
                raise NotApplicableError(found.failure or missing)
            if selector.needs_gradient_squares and (reason := self._measured().failure):
                raise NotApplicableError(reason)
            choice = _checked(known.choice if known else selector.select(evidence), candidates)
            complete = self.attributor.configure(dict(evidence.configuration) | dict(choice.values))
            values = {key: complete[key] for key in choice.values}
        except AttriboardError as error:
            choice, reason = Choice({}), f"not_applicable: {error}"
        except Exception as error:  # a selector's crash is a row, like an attributor's
            choice, reason = Choice({}), f"error: {_text(error)}"
        source = known or (found if selector.needs_spectrum else _Spectra())
        donor, asked = source.donor, source.seconds
        asked += self._measured().seconds if selector.needs_gradient_squares else 0.0
        return Selected(
            selector=selector.name,
            hyperparameter=selector.hyperparameter,
            values=values,
            transferred=donor is not None,
            candidates=candidates,
            criterion=choice.criterion,
            objective=choice.objective,
            note="; ".join(part for part in (choice.note, donor and f"spectrum of {donor}") if part),
            seconds=time.perf_counter() - started + asked,
            reason=reason,
        )

    def _candidates(self) -> dict[str, tuple[float, ...]]:
        grids = {hp.name: hp.grid for hp in self.attributor.hyperparameters} | dict(self.candidates)
        numbers = {key: _positive_numbers(grid) for key, grid in grids.items()}
        return {key: grid for key, grid in numbers.items() if grid}

    def _measured(self) -> _Squares:
        """Gradients of one model at every epoch that was kept, on evenly spaced examples; once, and where needed."""
        if self._squares is None and any(selector.needs_gradient_squares for selector in self.selectors):
            started = time.perf_counter()
            train, models = self.context.train, self.context.checkpoints
            some, run = train[:: -(-len(train) // GRADIENTS)], (models[0].seed, models[0].indices is None)
            found, failure = {}, None
            try:
                for model in models:
                    if (model.seed, model.indices is None) == run:
                        squares = squared_lengths(self.context, model, self.context.loss, some)
                        found[model.epoch] = float(squares.mean())
            except Exception as error:
                found, failure = {}, _text(error)
            self._squares = _Squares(found, time.perf_counter() - started, failure)
        return self._squares or _Squares()

    def _spectra(self, configuration: Mapping[str, HyperparameterValue], state: Any) -> _Spectra:
        """Spectra on calibration points."""
        own = self.attributor.spectrum(state)
        if own is not None:
            return _Spectra(tuple(spectrum.at(self._calibration) for spectrum in own))
        needing = {selector.name for selector in self.selectors if selector.needs_spectrum}
        if self.donor is None or REGULARIZATION not in configuration or not needing:
            return _Spectra()  # a donor's fit can take hours
        epoch, donor = configuration.get("epoch"), self.donor()
        values = donor.configure({"epoch": epoch})
        known = {name: found for name, found in self._chosen(donor, values).items() if name in needing}
        if len(known) == len(needing):
            return _Spectra(known=known)
        if epoch not in self._donors:
            started = time.perf_counter()
            fit_values = donor.stage(values, "fit")
            context = replace(self.context, test=self.context.test[self._calibration])
            require_memory(donor.memory_need(context, **fit_values), context.device, context.memory_bytes)
            found = donor.spectrum(donor.fit(context, **fit_values))
            assert found is not None, "a donor is chosen for its spectrum"
            seconds = time.perf_counter() - started
            self._donors[epoch] = _Spectra(tuple(found), donor=donor.name, seconds=seconds)
        return self._donors[epoch]

    def _chosen(self, donor: Attributor, values: Mapping[str, HyperparameterValue]) -> dict[str, Donated]:
        """Selector → what it chose before on the spectrum of a donor with these values, from the same candidates."""
        wanted = (donor.name, code_sha256(type(donor)), values, self._candidates().get(REGULARIZATION))
        return {
            found.selector: found
            for found in reversed(self.known)  # the newest last, so that it stays
            if (found.donor, found.code_sha256, found.hyperparameters, found.candidates) == wanted
        }


def _checked(choice: Choice, candidates: Sequence[float]) -> Choice:
    """The choice, if its curves are finite and have a number for every candidate.

    Raises:
        NotApplicableError: they are not.
    """
    for curve in (choice.criterion, choice.objective):
        if curve is not None and not (len(curve) == len(candidates) and all(map(math.isfinite, curve))):
            raise NotApplicableError(f"its curve {curve} is no finite number for each of {len(candidates)} candidates")
    return choice


def _text(error: Exception) -> str:
    name = "" if isinstance(error, AttriboardError) else f"{type(error).__name__}: "
    return name + " ".join(str(error).split())[:500]


def _positive_numbers(grid: Sequence[HyperparameterValue]) -> tuple[float, ...]:
    """The numbers above zero, ascending: ξ and projections have no use for others."""
    numbers = {float(value) for value in grid if isinstance(value, (int, float)) and not isinstance(value, bool)}
    return tuple(sorted(number for number in numbers if number > 0))
