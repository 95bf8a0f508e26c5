"""The licences that a mesh of a catalogue may have, and what each allows it to be used for."""

from dataclasses import dataclass
from enum import Enum

from sdf_backend.errors import InputError


class Use(Enum):
    """What the meshes under a licence may be used for."""

    ANY = "training and testing"
    TEST_ONLY = "testing"


@dataclass(frozen=True)
class Licence:
    """One licence, as catalogues spell it."""

    use: Use
    """TEST_ONLY where a decoder trained on it could not be shipped beside the others"""
    share_alike: str = ""
    """the licence that a model trained on it has to be shipped under; empty where any will do"""


LICENCES = {
    "CC0-1.0": Licence(Use.ANY),
    "CC-BY-3.0": Licence(Use.ANY),
    "CC-BY-3.0-US": Licence(Use.ANY),
    "BSD-3-Clause": Licence(Use.ANY),
    "GPL-2.0+": Licence(Use.ANY, "GPL-3.0-or-later"),
    "GPL-3.0-or-later": Licence(Use.ANY, "GPL-3.0-or-later"),
    "CC-BY-SA-3.0": Licence(Use.ANY, "CC-BY-SA-3.0"),
    # Its article 5 takes another licence as compatible only if that one names it in return, which no GPL does; so
    # weights that were trained on it together with meshes under the GPL could not be shipped under either.
    "FAL-1.3": Licence(Use.TEST_ONLY),
}


def check_licence(name: str, split: str, where: str) -> None:
    """Raise `InputError` unless a mesh under a licence may belong to a split.

    Parameters
    ----------
    name : the licence, as `LICENCES` spells it
    split : "train" or "test"
    where : the row that says so, for the message
    """
    if name not in LICENCES:
        raise InputError(
            f"{where} has the licence {name!r}, which is not one of {', '.join(LICENCES)}; leave the row out, or add "
            "the licence to training/licences.py once its terms allow a decoder trained on the mesh to be shipped"
        )
    if split != "test" and LICENCES[name].use is Use.TEST_ONLY:
        raise InputError(f"{where} trains with a mesh under {name}, which allows testing only; give it the split test")


def model_licence(names: set[str]) -> str:
    """Return the licence that share-alike demands of a model trained on meshes under all of these.

    Parameters
    ----------
    names : licences of its training meshes; those that `LICENCES` does not list demand nothing that is known here

    Returns
    -------
    licence : an SPDX licence; two joined by AND, where the meshes should not have been put together, since no model can
        be shipped under both; empty where none is demanded
    """
    return " AND ".join(sorted({LICENCES[name].share_alike for name in names & LICENCES.keys()} - {""}))


def check_together(names: set[str], category: str) -> None:
    """Raise `InputError` where no one licence could be given to a model trained on meshes under all of these.

    Parameters
    ----------
    names : licences of a category's training meshes
    category : for the message
    """
    demanded = {LICENCES[name].share_alike for name in names} - {""}
    if len(demanded) > 1:
        raise InputError(
            f"a model of the training meshes of {category} would have to be shipped under "
            f"{' and under '.join(sorted(demanded))} at once; leave one kind out, or keep it for testing"
        )
