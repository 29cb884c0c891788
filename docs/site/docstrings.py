"""How the site reads docstrings."""

import griffe


class Examples(griffe.Extension):
    """Takes the section `Example:`, which may hold one session of Python, as griffe takes `Examples:`."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Renames the section of an object that was loaded."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
