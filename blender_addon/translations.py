"""The languages of the interface: Blender translates labels and names itself, and `translated` sentences with values.

A text without a translation is shown in English.
"""

import bpy

from .words_de import WORDS as GERMAN
from .words_ja import WORDS as JAPANESE
from .words_zh import WORDS as CHINESE

LANGUAGES = {"de_DE": GERMAN, "ja_JP": JAPANESE, "zh_HANS": CHINESE}
# Blender looks up the labels of operators in a context of their own. Its own tables go first, and there "Lower" is the
# lower limit. So what is not a label has a context that only the add-on knows.
OWN = "SDF Shapes"
CONTEXTS = ("*", "Operator", OWN)


def translated(text: str, **values: str) -> str:
    """A text in the language of the interface, with values in the places that it names."""
    return translated_message(text).format(**values)


def translated_message(text: str) -> str:
    """A message, of the backend for instance, in the language of the interface where it is one of the fixed ones."""
    return bpy.app.translations.pgettext_iface(text, OWN)


def attach() -> None:
    """Add the translations to Blender's."""
    tables = {
        language: {(context, text): there for text, there in words.items() for context in CONTEXTS}
        for language, words in LANGUAGES.items()
    }
    bpy.app.translations.register(__package__ or "", tables)


def detach() -> None:
    """Remove them."""
    bpy.app.translations.unregister(__package__ or "")
