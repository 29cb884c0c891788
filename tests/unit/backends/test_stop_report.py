"""What a run that was stopped says of its trainings."""

import pickle

from wfc_dist.backends.stop_report import Ending, stopped


def test_each_training_is_named_with_what_became_of_it() -> None:
    error = stopped(
        "SIGTERM",
        {
            "a": Ending("checkpointed", 16, "node1"),
            "b": Ending("lost", host="node2", reason="ActorDiedError: gone"),
            "c": Ending("late", host="node3"),
            "d": Ending("waiting"),
            "e": Ending("checkpointed"),
        },
    )
    assert error.message == (
        "SIGTERM: checkpointed: a at step 16, e; lost while stopping, without a new checkpoint: b on node2 "
        "(ActorDiedError: gone); no checkpoint in time: c on node3; waiting for a trainer: d; the same command goes on"
    )
    assert error.facts["trainers"]["a"] == {"kind": "checkpointed", "step": 16, "host": "node1"}
    assert error.facts["trainers"]["d"] == {"kind": "waiting"}
    assert pickle.loads(pickle.dumps(error)).facts == error.facts, "Ray carries it"


def test_that_every_trainer_has_checkpointed_is_said_where_it_is_so() -> None:
    assert str(stopped("USR1", {"a": Ending("checkpointed", 3)})).startswith("USR1: every trainer has checkpointed: a at step 3;")


def test_a_long_list_is_cut() -> None:
    error = stopped("USR1", {f"set-{number}": Ending("checkpointed", 1) for number in range(30)})
    assert "and 10 more" in error.message and len(error.facts["trainers"]) == 30
