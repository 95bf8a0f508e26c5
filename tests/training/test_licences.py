"""Which licences a catalogue may name, for which split, and which of them no one model can serve."""

import pytest

from sdf_backend.errors import InputError
from training.licences import LICENCES, Use, check_licence, check_together, model_licence


@pytest.mark.parametrize("name", LICENCES)
def test_every_licence_on_the_list_may_be_tested_with(name: str) -> None:
    check_licence(name, "test", "row 1")


@pytest.mark.parametrize("name", [name for name, licence in LICENCES.items() if licence.use is Use.ANY])
def test_a_licence_for_any_use_may_be_trained_with(name: str) -> None:
    check_licence(name, "train", "row 1")


@pytest.mark.parametrize("name", ["GPL-2.0-only", "CC-BY-NC-4.0", "unknown", ""])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_licence_that_is_not_on_the_list_is_refused_with_what_to_do(name: str, split: str) -> None:
    with pytest.raises(
        InputError, match=rf"row 7 has the licence '{name}', which is not one of CC0-1\.0.*leave the row out"
    ):
        check_licence(name, split, "row 7")


def test_a_licence_for_testing_alone_is_refused_in_training() -> None:
    with pytest.raises(InputError, match=r"row 7 trains with a mesh under FAL-1\.3, which allows testing only"):
        check_licence("FAL-1.3", "train", "row 7")


def test_licences_without_share_alike_go_with_any_other() -> None:
    check_together({"CC0-1.0", "CC-BY-3.0", "GPL-2.0+"}, "cars")
    check_together({"CC0-1.0", "CC-BY-3.0", "CC-BY-SA-3.0"}, "quadrupeds")


def test_two_kinds_of_share_alike_are_refused_with_both() -> None:
    with pytest.raises(InputError, match=r"of quadrupeds .* under CC-BY-SA-3\.0 and under GPL-3\.0-or-later at once"):
        check_together({"CC-BY-SA-3.0", "GPL-2.0+"}, "quadrupeds")


@pytest.mark.parametrize(
    ("names", "licence"),
    [
        (set(), ""),
        ({"CC0-1.0", "CC-BY-3.0", "BSD-3-Clause"}, ""),
        ({"CC0-1.0", "ShapeNet", "unknown"}, ""),
        ({"CC-BY-3.0", "CC-BY-SA-3.0"}, "CC-BY-SA-3.0"),
        ({"BSD-3-Clause", "GPL-2.0+", "GPL-3.0-or-later"}, "GPL-3.0-or-later"),
        ({"CC-BY-SA-3.0", "GPL-2.0+"}, "CC-BY-SA-3.0 AND GPL-3.0-or-later"),
    ],
)
def test_a_model_inherits_the_share_alike_of_its_data(names: set[str], licence: str) -> None:
    assert model_licence(names) == licence
