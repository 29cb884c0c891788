import io

import pytest
from rich.console import Console

from wfc_dist.data.audit import AuditReport
from wfc_dist.data.findings import AuditRow, Problem
from wfc_dist.data.text_kinds import KINDS
from wfc_dist.reports.status import audit_table


@pytest.mark.parametrize("place", ["a.jsonl:1 ([noise] hello)", "a.jsonl:1 ([/noise] hello [red])", r"a\[b].jsonl:1"])
def test_a_warning_is_printed_as_it_is(place):
    kind = KINDS["square"]
    row = AuditRow("a", "train", 1, 0.1, 1.0, 1.0, 1.0, {"en": 1}, (Problem("warning", kind.what, 1, place, kind.todo),))
    printed = io.StringIO()

    Console(file=printed, width=400).print(audit_table(AuditReport((row,))))

    assert f"warning: 1 of 1 clips of a/train: {kind.what}, first: {place}; {kind.todo}" in printed.getvalue()
    assert "[noise]" in kind.what and "[square]" in kind.todo
