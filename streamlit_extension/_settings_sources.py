"""Reads settings from a TOML file and the environment, and says in one line what is wrong with them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, get_args, get_origin, get_type_hints

import msgspec

from otel.patterns import lazy
from streamlit_extension._settings_rules import rule_of
from streamlit_extension._settings_types import (
    Origin,
    OriginKind,
    Rule,
    Secret,
    SettingsError,
    shown,
)

PREFIX: Final = "STX_"
CONFIG_VARIABLE: Final = "STX_CONFIG"
DEFAULT_FILE: Final = "observability.toml"
_FILE: Final = "_file"

# What Kubernetes puts into every container for a Service whose name begins with "stx" (docker-link variables).
_INJECTED: Final = lazy(
    r"STX_(.+_)?SERVICE_HOST|STX_(.+_)?SERVICE_PORT(_.+)?|STX_(.+_)?PORT_\d+_(TCP|UDP|SCTP)(_.+)?", re.DOTALL
)

Path_ = tuple[str, ...]


class Entry(msgspec.Struct, frozen=True):
    """One value as it was written: `path` in the schema, `name` as the user spelled it."""

    path: Path_
    value: object
    name: str
    origin: Origin

    def error(self, text: str) -> SettingsError:
        """Return the error that names this setting and where it was written."""
        file = self.origin.name if self.origin.name.isprintable() else repr(self.origin.name)
        where = f" (in {file})" if self.origin.kind is OriginKind.FILE else " (in the environment)"
        return SettingsError(f"{self.name}: {text}{where}")


@cache
def fields_of(struct: type[msgspec.Struct]) -> Mapping[str, Any]:
    """Return the type of each field of a table, with its rule."""
    return get_type_hints(struct, include_extras=True)


def table_of(hint: Any) -> type[msgspec.Struct] | None:
    """Return the table that a field holds, None when it holds a value or a map."""
    return hint if isinstance(hint, type) and issubclass(hint, msgspec.Struct) else None


def map_of(hint: Any) -> Any | None:
    """Return what a map of free names holds, None when the field is no map."""
    return get_args(hint)[1] if get_origin(hint) is Mapping else None


def find(root: type[msgspec.Struct], path: Path_) -> Any | None:
    """Return the type at `path`, None when there is no such setting."""
    hint: Any = root
    for part in path:
        inner = map_of(hint)
        if inner is not None:
            hint = inner if part else None
        else:
            table = table_of(hint)
            hint = fields_of(table).get(part) if table is not None else None
        if hint is None:
            return None
    return hint


def known_paths(root: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Yield the path of every value in the schema; NAME stands for a free name."""
    if (inner := map_of(root)) is not None:
        yield from known_paths(inner, (*path, "NAME"))
    elif (table := table_of(root)) is not None:
        for name, hint in fields_of(table).items():
            yield from known_paths(hint, (*path, name))
    else:
        yield path


def environment_name(path: Path_) -> str:
    """Return the environment variable that sets the value at `path`."""
    return PREFIX + "__".join(path).upper()


def config_file(environ: Mapping[str, str], cwd: Path) -> Path | None:
    """Return the settings file: the one that STX_CONFIG names, else `observability.toml` in `cwd` when it is there."""
    if named := environ.get(CONFIG_VARIABLE):
        try:
            return cwd / Path(named).expanduser()
        except RuntimeError:
            raise SettingsError(f"{CONFIG_VARIABLE}: {named!r} is not allowed; allowed: the path of a file") from None
    default = cwd / DEFAULT_FILE
    return default if default.is_file() else None


def read_file(file: Path, root: type[msgspec.Struct]) -> list[Entry]:
    """Return every value of a TOML file; raises SettingsError in one line, with the line number for bad TOML."""
    try:
        data = tomllib.loads(file.read_bytes().decode("utf-8"))
    except OSError as error:
        raise SettingsError(f"settings file {str(file)!r}: can't be read ({error.strerror or 'unreadable'})") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"settings file {str(file)!r}: line {line}: not UTF-8 text") from None
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise SettingsError(f"settings file {str(file)!r}: {_toml_problem(str(error))}") from None
    return list(flatten(data, root, (), Origin(OriginKind.FILE, str(file))))


def _toml_problem(text: str) -> str:
    """Put the line number first; what the parser quotes from the file is left out, as it may be a secret."""
    place = re.search(r"at line (\d+)", text)
    at = f"line {place[1]}: " if place else "at its end: "
    what = re.sub(r"\s*\((at|Invalid).*", "", text.partition("\n")[0])
    return f"{at}not valid TOML ({re.sub(chr(39) + '.*', '', what).strip() or 'unreadable'})"


def flatten(data: Mapping[str, Any], root: type[msgspec.Struct], above: Path_, origin: Origin) -> Iterator[Entry]:
    """Yield every value of parsed TOML; raises SettingsError for a name that is no setting."""
    for key, value in data.items():
        path = (*above, key)
        entry = Entry(path, value, _spelled(path), origin)
        hint = find(root, path)
        if hint is None:
            raise unknown(entry, root)
        if rule_of(hint) is not None and map_of(hint) is None:
            yield entry
        elif isinstance(value, dict):
            yield from flatten(value, root, path, origin)
        else:
            raise entry.error(f"a {type(value).__name__} is not allowed here; allowed: a table, [{_spelled(path)}]")


def _spelled(path: Path_) -> str:
    """Write a path as in TOML, on one line whatever the keys hold."""
    plain = re.compile(r"[A-Za-z0-9_-]+")
    return ".".join(part if plain.fullmatch(part) else repr(part) for part in path)


def read_environment(environ: Mapping[str, str], root: type[msgspec.Struct]) -> list[Entry]:
    """Return every `STX_` variable that is a setting; raises SettingsError for one that is not."""
    entries = []
    for name, value in sorted(environ.items()):
        if name.startswith(PREFIX) and name != CONFIG_VARIABLE and not is_injected(name, value):
            entry = _variable(name, value, root)
            if entry is not None:
                entries.append(entry)
    return entries


def is_injected(name: str, value: str) -> bool:
    """Tell whether Kubernetes (or a Docker link) put this variable here for a Service."""
    return bool(_INJECTED.fullmatch(name)) or (
        name.endswith("PORT") and value.startswith(("tcp://", "udp://", "sctp://"))
    )


def _variable(name: str, value: str, root: type[msgspec.Struct]) -> Entry | None:
    path = tuple(name.removeprefix(PREFIX).lower().split("__"))
    shown_name = name if re.fullmatch(r"\w+", name, re.ASCII) else repr(name)
    entry = Entry(path, value, shown_name, Origin(OriginKind.ENVIRONMENT, name))
    hint = find(root, path)
    if hint is None or name != environment_name(path):
        raise unknown(entry, root)
    if map_of(hint) is not None or table_of(hint) is not None:
        raise entry.error(f"is a table; allowed: {entry.name}__NAME for each of its settings")
    rule = rule_of(hint)
    assert rule is not None
    return entry if value or _takes_empty(rule) else None  # empty counts as not set, as for OTEL_*


def _takes_empty(rule: Rule) -> bool:
    try:
        rule.parse("", is_text=True)
    except ValueError:
        return False
    return True


def unknown(entry: Entry, root: type[msgspec.Struct]) -> SettingsError:
    """Return the error for a name that is no setting, with the nearest one; its value, maybe a secret, is left out."""
    in_environment = entry.origin.kind is OriginKind.ENVIRONMENT
    names = [environment_name(path) if in_environment else ".".join(path) for path in known_paths(root)]
    if not in_environment:  # a table may be what is misspelt
        names += sorted({name.rpartition(".")[0] for name in names if "." in name})
    asked = entry.name.upper() if in_environment else ".".join(entry.path)
    import difflib  # for a slip alone

    near = difflib.get_close_matches(asked[:200], names, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else "allowed: the names in the README's configuration table"
    return entry.error(f"unknown setting; {hint}")


def convert(entry: Entry, rule: Rule) -> Any:
    """Return the final value of an entry; raises SettingsError with the value as far as it may be shown."""
    try:
        return rule.parse(entry.value, is_text=entry.origin.kind is OriginKind.ENVIRONMENT)
    except (ValueError, RuntimeError):  # RuntimeError: no such user in ~user, too deep a nesting
        value = shown(entry.value, rule.secrecy)
        raise entry.error(f"{value} is not allowed; allowed: {rule.allowed}") from None


def convert_file(entry: Entry, file: str, rule: Rule, cwd: Path) -> Secret:
    """Return the secret that a `NAME_file` setting points to, checked as if it were written in place."""
    try:
        secret = Secret(file=cwd / file)
    except UnicodeDecodeError:
        raise entry.error(f"{file!r} does not hold UTF-8 text; allowed: a file with the secret alone") from None
    except ValueError:
        raise entry.error(f"{file!r} is empty; allowed: a file that holds the secret") from None
    except OSError as error:
        why = error.strerror or "unreadable"
        raise entry.error(f"{file!r} can't be read ({why}); allowed: a readable file that holds the secret") from None
    try:
        rule.parse(secret.reveal().splitlines() if rule.raw is not str else secret.reveal(), is_text=False)
    except ValueError:
        raise entry.error(f"what {file!r} holds is not allowed; allowed: {rule.allowed}") from None
    return secret


def twin_of(path: Path_, root: type[msgspec.Struct]) -> Path_ | None:
    """Return the path of the secret whose `NAME_file` this path is, None for any other."""
    if not path[-1].endswith(_FILE):
        return None
    plain = (*path[:-1], path[-1].removesuffix(_FILE))
    return plain if find(root, plain) is not None else None
