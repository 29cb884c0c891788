"""The shapes of a run's records, which readers may rely on (see `storage.shapes`)."""

from typing_extensions import Required, TypedDict

from wfc_dist.storage.shapes import CLOSED, STRICT, Shape


class _Trial(TypedDict, total=False):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    what: Required[str]
    findings: Required[list[str]]
    update_ratio: Required[float | None]


class _Gate(TypedDict, total=False):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    trials: list[_Trial]


class _Base(TypedDict, total=False):
    """Base 0 says where the root model is, a later base how it was made."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    sha256: Required[str]
    model: str
    revision: str | None
    root: str
    found: str
    model_path: str
    root_tensors: dict[str, str]
    root_files: dict[str, str]
    tensors: dict[str, str]
    adapters: dict[str, str]
    weights: dict[str, float]
    missing: dict[str, str]
    grafted: dict[str, str]
    gate: _Gate
    method: str
    options: dict[str, float]
    norm: str
    scale: float
    seed: int
    update_norm: float
    update_loss: float
    exactness_gap: float | None
    gap_per_module: dict[str, float | None]
    links: dict[str, str]
    changed: list[str]


class _Adapter(TypedDict, total=False):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    sha256: Required[str]
    base_sha256: str
    hours: float
    dataset: str
    steps: int
    best_step: int
    dev_loss: float | None
    dev_error: float | None
    trained_against: str
    late: bool


class _Line(TypedDict, total=False):
    """A line of the ledger."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    event: Required[str]
    attempt: int
    time: str
    round: int
    dataset: str
    sha256: str
    reason: str
    host: str
    to: int
    base: int
    num_pending: int
    age_s: dict[str, float]
    changed: list[str]
    weights: dict[str, float]
    missing: dict[str, str]
    environment: dict[str, object]


class _Status(TypedDict, total=False):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    state: Required[str]
    message: Required[str]
    attempt: Required[int]
    exit_code: int | None
    host: str
    pid: int
    time: str
    base_sha256: str


class _Record(TypedDict, total=False):
    """RUN/config.json."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    config: Required[dict[str, object]]
    config_sha256: str
    data: dict[str, str]
    attempt: int
    arrivals: dict[str, float]
    rolled_back_to: int
    run_id: str


class _Training(TypedDict):
    __pydantic_config__ = CLOSED  # type: ignore[misc]
    dataset: str
    step: int
    max_steps: int
    loss: float | None
    host: str
    left_s: float | None


class _Progress(TypedDict):
    __pydantic_config__ = CLOSED  # type: ignore[misc]
    what: str
    done: float
    total: float
    unit: str
    left_s: float | None
    time_s: float
    trainings: list[_Training]


class _Score(TypedDict, total=False):
    """A test set in scores.json; see `evaluation.metrics.Score`."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    metric: Required[str]
    rate: Required[float]
    low: float | None
    high: float | None
    errors: int
    reference_length: int
    substitutions: int
    deletions: int
    insertions: int
    num_clips: int
    confidence: float


class _Scores(TypedDict, total=False):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    kind: Required[str]
    model: Required[str]
    round: Required[int]
    sets: Required[dict[str, _Score]]


class _Fit(TypedDict, total=False):
    """RUN/round-NNNN/fit/fitted.json."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    adapters: Required[dict[str, str]]
    weights: Required[dict[str, float]]
    scale: Required[float]


class _MixtureTried(TypedDict, total=False):
    """A line of trials.jsonl."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    adapters: Required[list[str]]
    weights: Required[list[float]]
    scale: Required[float]
    rates: Required[dict[str, float]]


class _CurveRow(TypedDict, total=False):
    """A line of a metrics log: a step, or an evaluation of a step."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    step: Required[int]
    loss: float
    lr: float
    speech_seconds: float
    dev_loss: float
    dev_error: float


class _Event(TypedDict, total=False):
    """A line of an events file."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    time_s: Required[float]
    event: Required[str]
    phase: str
    beside: bool


ROOT = Shape(_Base, "root", "root_tensors", "root_files", "tensors", "model_path")
BASE, INTERIM = Shape(_Base), Shape(_Base, "adapters", "links")
ADAPTER, MERGEABLE = Shape(_Adapter), Shape(_Adapter, "base_sha256", "hours")
RECORD, LINE, STATUS, PROGRESS = Shape(_Record), Shape(_Line), Shape(_Status), Shape(_Progress)
SCORES, FIT, MIXTURE_TRIED, CURVE, EVENT = Shape(_Scores), Shape(_Fit), Shape(_MixtureTried), Shape(_CurveRow), Shape(_Event)
