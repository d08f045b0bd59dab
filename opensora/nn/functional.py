"""`F.attention(...)`, `F.reshape(...)`: one set of functions for models, with a form for each engine."""

from typing import Any

from opensora.engine.graph import is_tracing


class Functions:
    """Functions by name: from `forms_openvino` while a graph is traced, else from `forms_mindspore`."""

    __ms_class__ = True  # so that MindSpore's compiler asks the object for its attributes

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if is_tracing():
            from opensora.nn import forms_openvino

            return getattr(forms_openvino, name)
        from opensora.nn import forms_mindspore

        return getattr(forms_mindspore, name)


F = Functions()
