"""The child's side of selection: gathers the evidence of a fitted attributor and lets selectors choose.

A method that offers its spectrum is asked for it. One that adds an absolute λ to the same curvature, but has no cheap
spectrum, gets the λ found on a *donor*: another attributor's spectrum on the same models (the task's Fisher spectrum).
Such a choice is marked as transferred. Coefficients are cut down to the calibration points before any selector sees
them.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from attriboard.attribution.job import Selected
from attriboard.cards import TaskCard
from attriboard.contracts import Attributor, Context, HyperparameterValue
from attriboard.errors import AttriboardError, NotApplicableError
from attriboard.scoring.split import split_test_points
from attriboard.selector import Choice, Evidence, Selector, regularization_name
from attriboard.toolkit.spectrum import Spectrum

__all__ = ["Chooser"]


@dataclass
class Chooser:
    """Runs selectors on fitted states.

    Args:
        selectors: to run.
        card: of the task.
        context: of the run.
        attributor: whose hyperparameters are chosen.
        donor: whose spectrum stands in where the attributor has none.
        candidates: hyperparameter → values to choose from; the attributor's own grids where absent.
    """

    selectors: Sequence[Selector]
    card: TaskCard
    context: Context
    attributor: Attributor
    donor: type[Attributor] | None
    candidates: Mapping[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        split = self.card.split
        points = split_test_points(len(self.context.test), split.calibration, split.seed)
        self._calibration = torch.from_numpy(points.calibration)
        self._donated: dict[HyperparameterValue, list[Spectrum]] = {}  # epoch → spectra

    def choose(self, configuration: Mapping[str, HyperparameterValue], state: Any) -> list[Selected]:
        """Let every selector choose, starting from a fitted configuration; refusals are choices with a reason."""
        name = regularization_name({hp.name for hp in self.attributor.hyperparameters})
        failure: str | None = None
        spectra: tuple[Spectrum, ...] = ()
        transferred = False
        try:
            spectra, transferred = self._spectra(configuration, state, name)
        except AttriboardError as error:
            failure = str(error)
        evidence = Evidence(
            configuration=configuration,
            candidates=self._candidates(name),
            spectra=spectra,
            recipe=self.card.recipe,
            n_train=len(self.context.train),
            seed=self.context.seed,
        )
        return [self._choose(selector, evidence, name, transferred, failure) for selector in self.selectors]

    def _choose(
        self, selector: Selector, evidence: Evidence, name: str | None, transferred: bool, failure: str | None
    ) -> Selected:
        started = time.perf_counter()
        choice, reason = Choice({}), None
        try:
            if name is None and selector.name != "default":
                raise NotApplicableError("the method has no regularization to choose")
            if selector.needs_spectrum and not evidence.spectra:
                raise NotApplicableError(failure or "neither the method nor the task's Fisher matrix has a spectrum")
            choice = selector.select(evidence)
        except AttriboardError as error:
            reason = f"not_applicable: {error}"
        values = {name if key == "regularization" and name else key: value for key, value in choice.values.items()}
        return Selected(
            selector=selector.name,
            values=values,
            transferred=transferred and selector.needs_spectrum,
            candidates=evidence.candidates.get(selector.hyperparameter, ()),
            criterion=choice.criterion,
            objective=choice.objective,
            note=choice.note,
            seconds=time.perf_counter() - started,
            reason=reason,
        )

    def _candidates(self, name: str | None) -> dict[str, tuple[float, ...]]:
        grids = {hp.name: hp.grid for hp in self.attributor.hyperparameters} | dict(self.candidates)
        numbers = {key: _positive_numbers(grid) for key, grid in grids.items()}
        if name is not None:
            numbers["regularization"] = numbers[name]
        return {key: grid for key, grid in numbers.items() if grid}

    def _spectra(
        self, configuration: Mapping[str, HyperparameterValue], state: Any, name: str | None
    ) -> tuple[tuple[Spectrum, ...], bool]:
        """Spectra on calibration points, and whether they are a donor's."""
        own = self.attributor.spectrum(state)
        if own is not None:
            return self._calibrated(own), False
        if self.donor is None or name is None:
            return (), False
        epoch = configuration.get("epoch")
        if epoch not in self._donated:
            donor = self.donor()
            values = donor.configure({"epoch": epoch})
            found = donor.spectrum(donor.fit(self.context, **donor.stage(values, "fit")))
            assert found is not None, "a donor is chosen for its spectrum"
            self._donated[epoch] = found
        return self._calibrated(self._donated[epoch]), True

    def _calibrated(self, spectra: Sequence[Spectrum]) -> tuple[Spectrum, ...]:
        return tuple(spectrum.at(self._calibration) for spectrum in spectra)


def _positive_numbers(grid: Sequence[HyperparameterValue]) -> tuple[float, ...]:
    """The numbers above zero, ascending: ξ and projections have no use for others."""
    numbers = (float(value) for value in grid if isinstance(value, (int, float)) and not isinstance(value, bool))
    return tuple(sorted(number for number in numbers if number > 0))
