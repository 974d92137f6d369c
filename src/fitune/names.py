"""Names in a task file → functions and classes: from a visible table, or `package.module:name`.

Knows strings and imports; knows no table. Called before anything loads, so that a misspelt name
costs a second and not an hour.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fitune.errors import ConfigError


def lookup(name: str, table: Mapping[str, Any], what: str) -> Any:
    """The object called `name`; a table's value may itself be spelt `package.module:name`.

    Args:
        what: what the name stands for, e.g. ``"metric"``, for messages.

    Raises:
        ConfigError: no such name, module or attribute.
    """
    if name in table:
        value = table[name]
        return import_object(value, what) if isinstance(value, str) else value
    if ":" in name:
        return import_object(name, what)
    near = difflib.get_close_matches(name, table, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise ConfigError(
        f"there is no {what} '{name}'",
        fix=f"{hint}use one of {', '.join(table)}, or your own as package.module:name",
    )


def import_object(path: str, what: str) -> Any:
    """The class or function at `package.module:name`; modules may lie in the working directory.

    Raises:
        ConfigError: the module cannot be imported, has no such name, or it cannot be called.
    """
    module_name, _, attribute = path.partition(":")
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a script that was not written to be imported
        reason = (str(error).splitlines() or [""])[0]
        raise ConfigError(
            f"{what} '{path}' cannot be imported ({type(error).__name__}: {reason})",
            fix=f"make 'import {module_name}' work in this Python first",
        ) from error
    finally:
        if added:
            sys.path.remove(here)
    found = getattr(module, attribute, None)
    if found is None:
        near = difflib.get_close_matches(attribute, dir(module), n=1)
        raise ConfigError(
            f"{what} '{path}': module '{module_name}' has no '{attribute}'",
            fix=f"did you mean '{near[0]}'" if near else "check the spelling after the colon",
        )
    if not callable(found):
        raise ConfigError(
            f"{what} '{path}' is {found!r:.60}, which is neither a class nor a function",
            fix="name a class or function after the colon",
        )
    return found
