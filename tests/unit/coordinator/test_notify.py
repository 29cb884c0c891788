"""`run.notify`: what the command gets, and that a run does not depend on it."""

import logging
import sys
import time
from pathlib import Path

import pytest
import scored_runs

from wfc_dist.config import loading
from wfc_dist.config.schema import Config
from wfc_dist.coordinator.notify import notify, require_notifier
from wfc_dist.errors import ConfigError


def config_with(folder: Path, command: str | None) -> Config:
    tree = scored_runs.make_config(folder).model_dump(mode="json")
    tree["run"]["notify"] = command
    return loading.parse(tree)


@pytest.mark.process
@pytest.mark.parametrize(("state", "code"), [("done", 0), ("failed", 1), ("stopped", 75)])
def test_the_command_gets_the_facts_in_its_environment_and_no_shell_reads_it(tmp_path: Path, state, code) -> None:
    script = tmp_path / "told me.py"
    script.write_text(
        "import os, sys\n"
        "names = 'STATE RUN RUN_DIR MESSAGE EXIT_CODE'.split()\n"
        "open(sys.argv[1], 'w').write('|'.join([*(os.environ['WFC_' + name] for name in names), *sys.argv[2:]]))\n"
    )
    config = config_with(tmp_path, f"{sys.executable} '{script}' {tmp_path}/out '$HOME; `id`' *")
    notify(config, state, "base 2 is\nhere; $(id)", code)
    said = (tmp_path / "out").read_text()
    assert said == f"{state}|r|{config.run_dir().absolute()}|base 2 is\nhere; $(id)|{code}|$HOME; `id`|*"


@pytest.mark.process
@pytest.mark.parametrize(
    ("code", "message"),
    [("import sys; print('s3cret'); sys.exit(3)", "exited with 3"), ("import time; time.sleep(600)", "took longer than 1 s")],
)
def test_a_command_that_fails_or_hangs_is_only_logged_without_its_words(tmp_path: Path, caplog, code, message) -> None:
    start = time.monotonic()
    with caplog.at_level(logging.WARNING):
        notify(config_with(tmp_path, f'{sys.executable} -c "{code}" token=s3cret'), "done", "m", 0, timeout_s=1.0)
    assert message in caplog.text and "s3cret" not in caplog.text and time.monotonic() - start < 60


@pytest.mark.process
def test_a_program_that_is_gone_is_logged(tmp_path: Path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        notify(config_with(tmp_path, "/no/such/program token=s3cret"), "failed", "m", 1)
    assert "/no/such/program did not start: No such file" in caplog.text and "s3cret" not in caplog.text


def test_no_command_is_no_notice_and_a_missing_program_is_refused_before_the_run(tmp_path: Path) -> None:
    notify(config_with(tmp_path, None), "done", "m", 0)
    require_notifier(config_with(tmp_path, None))
    require_notifier(config_with(tmp_path, f"{sys.executable} -c pass"))
    with pytest.raises(ConfigError, match=r"run\.notify: there is no program 'wfc-no-such-program' here"):
        require_notifier(config_with(tmp_path, "wfc-no-such-program --token=s3cret"))


@pytest.mark.parametrize(("command", "message"), [("mail 'me", "no closing quotation"), ("  ", "the command is empty")])
def test_what_is_no_command_is_refused(tmp_path: Path, command: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"notify: {message}"):
        config_with(tmp_path, command)


def test_a_resume_may_change_it(tmp_path: Path) -> None:
    before, after = (config_with(tmp_path, command).model_dump(mode="json") for command in (None, "mail"))
    assert loading.changed_keys(before, after) == []
