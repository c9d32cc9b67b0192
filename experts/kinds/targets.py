"""Which modules an adapter's config targets, by PEFT's own rules.

PEFT ignores tensors of other modules without a word, so they would act here and not there: an
adapter that holds any is refused. Sees names only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import SimpleNamespace

from peft.tuners.tuners_utils import check_target_module_exists

from experts.errors import MismatchedExpert, UnsupportedExpert
from experts.kinds.patterns import MAX_CHARACTERS, require_quick

ALL_LINEAR = "all-linear"
MAX_LAYERS_PATTERNS = 100  # PEFT compiles each again for every module once there are hundreds


def require_targeted(
    config: Mapping[str, object], modules: Iterable[str], sites: Collection[str]
) -> None:
    """Refuse tensors of modules that the config does not target.

    Args:
        modules: those the adapter has tensors for, all of them sites. sites: the backbone's,
            every one a linear layer.

    Raises:
        MismatchedExpert: with the modules that are not targeted.
        UnsupportedExpert: the config does not say what it targets, or says it in a way that PEFT
            refuses or that could take too long.
    """
    rule = _rule(config, sites)
    modules = list(modules)
    matched = [m for m in modules if check_target_module_exists(rule, m)]
    stray = [m for m in modules if m not in matched]
    if stray:
        raise MismatchedExpert(
            f"{len(stray)} of the adapter's modules are not targeted by its config, and PEFT would "
            f"ignore them: {', '.join(stray[:5])}{', ...' if len(stray) > 5 else ''}.",
            matched=matched,
            unmatched=stray,
        )


def _rule(config: Mapping[str, object], sites: Collection[str]) -> SimpleNamespace:
    """The fields of the config that PEFT's check reads."""
    targets = _texts(config, "target_modules", sites)
    if targets is None:
        raise UnsupportedExpert(
            "target_modules is missing: PEFT would choose them by the type of the model."
        )
    layers, layers_pattern = config.get("layers_to_transform"), _layers_pattern(config, sites)
    if isinstance(targets, str) and (layers, layers_pattern) != (None, None):
        raise UnsupportedExpert("layers_to_transform and layers_pattern need target_modules=[...].")
    if layers_pattern and layers is None:
        raise UnsupportedExpert("layers_pattern needs layers_to_transform.")
    if isinstance(targets, str) and targets.lower() == ALL_LINEAR:
        targets = list(sites)
    return SimpleNamespace(
        target_modules=targets,
        exclude_modules=_texts(config, "exclude_modules", sites),
        layers_to_transform=layers,
        layers_pattern=layers_pattern,
    )


def _texts(
    config: Mapping[str, object], field: str, sites: Collection[str]
) -> str | list[str] | None:
    """A field that is one regular expression, or a list of names."""
    value = config.get(field)
    if isinstance(value, str):
        require_quick(field, [value], sites)
        return value
    if value is None:
        return None
    texts = [v for v in value if isinstance(v, str)] if isinstance(value, list) else []
    if texts != value or sum(map(len, texts)) > MAX_CHARACTERS:
        raise UnsupportedExpert(f"{field} is neither a text nor a list of a few texts.")
    return texts


def _layers_pattern(config: Mapping[str, object], sites: Collection[str]) -> list[str] | None:
    """`layers_pattern`, each a regular expression, also in a list."""
    value = _texts(config, "layers_pattern", sites)
    if value is None:
        return None
    patterns = [value] if isinstance(value, str) and value else list(value)
    if len(patterns) > MAX_LAYERS_PATTERNS:
        raise UnsupportedExpert(f"layers_pattern has more than {MAX_LAYERS_PATTERNS} patterns.")
    require_quick("layers_pattern", patterns, sites)
    return patterns
