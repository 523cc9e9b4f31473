"""What `import benchmark` offers: lazily, documented and typed."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import benchmark as mb


def test_importing_it_loads_neither_torch_nor_pandas():
    code = "import benchmark, sys; sys.exit(bool({'torch', 'pandas', 'numpy', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False, timeout=60).returncode == 0


def public_members():
    for name in mb.__all__:
        thing = getattr(mb, name)
        yield name, thing
        if isinstance(thing, type):
            for key, value in vars(thing).items():
                if not key.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                    yield f"{name}.{key}", value.fget if isinstance(value, property) else value


def test_every_name_exists_and_says_what_it_does_and_takes():
    bare = [name for name, thing in public_members() if not inspect.getdoc(thing)]
    assert not bare
    untyped = [
        name for name, thing in public_members() if inspect.isfunction(thing) and "return" not in thing.__annotations__
    ]
    assert not untyped
    assert set(mb.__all__) <= set(dir(mb))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        _ = mb.nothing
