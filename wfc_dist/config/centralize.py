"""The configuration of the average, of the merge, and of the gate before it is committed."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from wfc_dist.config.training import REMEDY, Strict
from wfc_dist.merging import catalog


class GateConfig(Strict):
    """What a merge must pass before its base is committed, beside being finite (docs/gates.md)."""

    max_update_ratio: float | None = Field(None, gt=0)
    """The largest norm of the update, as a share of the norm of the weights that it changes; no limit by default."""
    max_growth: float | None = Field(None, gt=0)
    """The largest norm of the update, as a multiple of the largest of the rounds before; no limit by default."""
    canaries: list[str] = Field(default_factory=list)
    """Test sets that may not get worse from the base before; none by default."""
    max_worse: float = Field(0.05, ge=0)
    """A canary set is worse if its error grows by more than this (0.05 is 5 points) and the interval of the change is above 0."""
    action: Literal["stop", "scale", "leave_one_out"] = "stop"
    """What follows a bad merge: the run stops; the scale is halved, at most three times; or the best merge without one data set
    that passes is taken."""

    @property
    def is_on(self) -> bool:
        """Says whether there is anything to judge a merge by, or to do about one that is not finite."""
        return bool(self.canaries) or self.action != "stop" or (self.max_update_ratio, self.max_growth) != (None, None)


class CentralizeConfig(Strict):
    """How adapters become one update: delta = scale * method(adapters, weights); docs/merging.md has every method's formula."""

    method: str = "mean"
    """`mean` is the exact mean of the updates, sum_i w_i * scaling_i * B_i @ A_i; `wfc average --help` lists the others."""
    options: dict[str, float] = Field(default_factory=dict)
    """Of the method, such as {density: 0.3}; those not named keep their defaults."""
    weights: Literal["uniform", "hours", "fitted"] | dict[str, float] = "uniform"  # [P]
    """`fitted` searches for those of the least dev error, mean over the round's data sets (`mean` only)."""
    norm: Literal["own", "mean"] = "own"
    """`mean` gives each module's update the Frobenius norm that `mean` would have there: methods compared at equal step."""
    scale: Annotated[Annotated[float, Field(gt=0)] | Literal["inverse_task", "fitted"], REMEDY] = 1.0
    """Factor of the update; `inverse_task` is 1/(t + 1) in round t (FTA, arXiv 2210.15282, where the model that is adapted has
    learned task 1), `fitted` as with weights."""

    quorum: Annotated[Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] | None, REMEDY] = None
    """So many data sets of a round, or that share of them, make a base without those that diverge or keep failing, for good; by
    default all are needed (docs/gates.md)."""

    late: Annotated[Literal["never", "next_round"], REMEDY] = "never"
    """`next_round`: the adapter that a round was committed without is trained all the same, against its own round's base, and
    becomes a member of a later round; that round's base says so (docs/gates.md)."""

    gate: Annotated[GateConfig, REMEDY] = GateConfig()

    @model_validator(mode="after")
    def _only_a_quorum_makes_late(self) -> "CentralizeConfig":
        if self.late != "never" and self.quorum is None:
            raise ValueError("late: without a quorum no round does without a data set; set centralize.quorum, or leave late out")
        return self

    @field_validator("method")
    @classmethod
    def _method_exists(cls, method: str) -> str:
        catalog.entry(method)
        return method

    @field_validator("options")
    @classmethod
    def _options_of_the_method(cls, options: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        if "method" in info.data:
            catalog.resolved(info.data["method"], options)
        return options

    @model_validator(mode="after")
    def _step_is_the_methods_own(self) -> "CentralizeConfig":
        catalog.check_step(self.method, self.norm, self.scale if self.gate.action != "scale" else "smaller")
        return self

    @model_validator(mode="after")
    def _mean_is_what_is_fitted(self) -> "CentralizeConfig":
        if self.is_fitted and self.method != "mean":
            raise ValueError(
                f"weights and scale are fitted for method mean, not {self.method}: what is tried are sums of updates"
            )
        return self

    def shown_scale(self) -> str:
        """Returns the scale for a page."""
        return self.scale if isinstance(self.scale, str) else f"{self.scale:g}"

    @property
    def is_fitted(self) -> bool:
        """Says whether a round decodes dev splits before it is merged."""
        return "fitted" in (self.weights, self.scale)
