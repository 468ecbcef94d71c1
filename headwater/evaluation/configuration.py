"""What is compared: embedding model, settings of the vectors and chunks, and the way to search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args

from headwater.errors import SettingsError
from headwater.index import Mode
from headwater.settings import Settings

__all__ = ["COMPARED_SETTINGS", "SEARCH_SETTINGS", "Configuration", "configurations"]

#: settings that only a search depends on
SEARCH_SETTINGS = ("fusion", "rank_constant", "dense_weight", "sparse_weight")
#: settings that may be given several times; each combination has an index of its own, but for those of the search. One
#: more name here and one more option of the command are all that another setting needs.
COMPARED_SETTINGS = (
    "model", "truncate_dim", "precision", "chunk_tokens", "heading_context", "quantization", *SEARCH_SETTINGS
)  # fmt: skip
#: those of them that the chunks depend on and the vector of a given text does not
_CHUNK_SETTINGS = ("chunk_tokens", "heading_context", "quantization", *SEARCH_SETTINGS)


@dataclass(frozen=True, slots=True)
class Configuration:
    """One way to index and search. ``values`` are the settings that are given, in the order of ``COMPARED_SETTINGS``;
    all others are as the environment has them."""

    values: tuple[tuple[str, Any], ...] = ()
    mode: Mode = "dense"

    def settings(self) -> Settings:
        """All settings. Raises SettingsError for a value that is not allowed."""
        return Settings.load(**dict(self.values))

    def same_index(self) -> tuple[tuple[str, Any], ...]:
        """Equal for configurations that share an index."""
        return tuple((name, value) for name, value in self.values if name not in SEARCH_SETTINGS)

    def of_search(self) -> dict[str, Any]:
        """The settings that only a search depends on, as far as they are given."""
        return {name: value for name, value in self.values if name in SEARCH_SETTINGS}

    def same_vectors(self) -> tuple[tuple[str, Any], ...]:
        """Equal for configurations that give a text the same vector."""
        return tuple((name, value) for name, value in self.values if name not in _CHUNK_SETTINGS)

    def to_dict(self) -> dict[str, Any]:
        """With the values in force of all settings that could be given."""
        settings = self.settings()
        return {**{name: getattr(settings, name) for name in COMPARED_SETTINGS}, "mode": self.mode}


def configurations(options: Mapping[str, Sequence[Any]], modes: Sequence[str]) -> tuple[Configuration, ...]:
    """Every combination of the options (by name of the setting) and modes, those that share an index side by side.

    Raises SettingsError for a name, value or mode that is not allowed.
    """
    if unknown := set(options) - set(COMPARED_SETTINGS):
        raise SettingsError(f"{', '.join(sorted(unknown))} cannot be compared: {', '.join(COMPARED_SETTINGS)} can")
    for mode in modes:
        if mode not in get_args(Mode):
            raise SettingsError(f"the mode is {mode!r}: give one of {', '.join(get_args(Mode))}")
    given = [name for name in COMPARED_SETTINGS if options.get(name)]
    values = [[_value(name, value) for value in dict.fromkeys(options[name])] for name in given]
    made = tuple(
        Configuration(tuple(zip(given, combination, strict=True)), mode)  # type: ignore[arg-type]  # checked above
        for combination in product(*values)
        for mode in dict.fromkeys(modes)
    )
    for configuration in made:
        configuration.settings()
    return made


def _value(name: str, value: Any) -> Any:
    """The path of a model is made absolute: the service that indexes runs in another directory."""
    path = Path(value).expanduser() if name == "model" else None
    return str(path.resolve()) if path is not None and path.is_dir() else value
