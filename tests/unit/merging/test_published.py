"""Every method is that of its source, or differs as far as docs/merging.md says. The page's table is what is measured here."""

import math

import published_methods as published
import pytest

from wfc_dist.merging import catalog


@pytest.mark.parametrize("place", range(len(published.ROWS)))
def test_a_method_is_that_of_its_source_or_is_said_to_deviate(place: int) -> None:
    row, difference = published.ROWS[place], published.differences()[place]
    assert (difference < published.SAME) == row.is_same, difference
    if not row.is_same:
        digits = 10 * difference / 10 ** math.floor(math.log10(difference))
        assert abs(digits % 10 - 5) > 0.02, f"{difference:g} is rounded another way by the next processor; choose other cases"


def test_every_method_has_a_reference() -> None:
    named = {row.method.split("`")[1] for row in published.ROWS if row.is_same}
    assert named == {*catalog.METHODS, "lora.variant: cssvd"}


def test_the_table_of_the_page_is_what_is_measured() -> None:
    page = published.PAGE.read_text(encoding="utf-8")
    assert published.BEGIN in page and published.written(page) == page, "run make docs"
