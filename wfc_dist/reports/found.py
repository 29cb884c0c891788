"""The table of `wfc init`: what was found in the sources."""

from collections.abc import Mapping

from rich.console import Group
from rich.text import Text

from wfc_dist.data.detection.look import LAYOUTS, Corpus
from wfc_dist.reports.tables import titled_table

_MOST_PASSED_OVER = 4


def found_table(corpora: Mapping[str, Corpus]) -> Group:
    """Returns the data sets with format, clips, hours and languages of each split, and sentences on what was left out."""
    table = titled_table("found", "data set", "format", "split", "clips", "hours", "language")
    lines = []
    for name, corpus in corpora.items():
        for number, (split, facts) in enumerate(corpus.facts.items()):
            hours = "?" if facts.hours is None else f"{'about ' if facts.is_about else ''}{facts.hours:.2f}"
            codes = [corpus.language] if corpus.language else sorted(facts.languages)
            language = "?" if corpus.is_silent else " ".join(codes[:4]) + (" ..." if len(codes) > 4 else "")
            layout = LAYOUTS[corpus.block.get("format", "jsonl")]
            clips = "?" if facts.num_clips is None else str(facts.num_clips)
            table.add_row(*((name, layout) if number == 0 else ("", "")), split, clips, hours, language)
        missing = sum(facts.num_missing for facts in corpus.facts.values())
        lines += [f"{name}: {missing} recordings are missing or cannot be read; wfc audit names them"] if missing else []
        if corpus.passed_over:
            shown, num = corpus.passed_over[:_MOST_PASSED_OVER], len(corpus.passed_over)
            more = f" and {num - len(shown)} more" if num > len(shown) else ""
            lines.append(f"{name}: not read: {', '.join(shown)}{more}")
        if "train" in corpus.splits and "test" not in corpus.splits:
            lines.append(f"{name}: no test split was found, so that no base is scored on it")
        lines += [f"{name}: {note}" for note in corpus.notes]
        lines += [f"{name}: still to be set: {todo}" for todo in corpus.todo]
    return Group(table, *map(Text, lines))
