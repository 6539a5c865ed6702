"""Writers of encoders for other programs; calling it is `byol_jax.api.export`.

Python makes a subpackage an attribute of its package, so that ``byol_jax.export`` is this module
wherever it was imported, and never the function.
"""

import sys
import types
from typing import Any


class _Callable(types.ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from byol_jax import api

        return api.export(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
