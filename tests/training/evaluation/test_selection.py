"""Selections of shapes."""

from training.dataset import ShapeRecord
from training.evaluation.selection import evenly_spaced


def test_selected_shapes_are_evenly_spaced_from_first_to_last() -> None:
    records = [ShapeRecord(str(index), "test") for index in range(10)]
    assert [record.name for record in evenly_spaced(records, 4)] == ["0", "3", "6", "9"]
    assert evenly_spaced(records, 11) == records and evenly_spaced(records, 1) == records[:1]
