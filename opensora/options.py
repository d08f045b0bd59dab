"""Groups of options: how the dataclass of a command's options is divided in its help and in YAML files.

A command's options are one flat dataclass that is composed of small ones, a group each:

    @dataclass(frozen=True, kw_only=True)
    class OptimizerOptions:
        \"\"\"Optimizer.\"\"\"  # the first line is the group's title in --help

        GROUP: ClassVar[str] = "optimizer"  # its section in a YAML file
        learning_rate: float = 2e-5
        \"\"\"Peak learning rate.\"\"\"

    @dataclass(frozen=True, kw_only=True)
    class TrainOptions(ModelOptions, DataOptions, OptimizerOptions): ...

Help shows the groups that have required options first, then all in the order of the bases. On the command
line an option has its own name, `--learning_rate`; a YAML file holds `learning_rate:` at the top or under
`optimizer:`. A subclass that repeats an option to change its default leaves it in its group. Options of
classes without GROUP are the group "general".
"""

from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, ClassVar

GENERAL = "general"


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """Parallelism (start with msrun)."""

    GROUP: ClassVar[str] = "parallel"
    rank_timeout: float = 30.0
    """Seconds that a process of a job may stand still, as one that is suspended; then the job ends."""


@dataclass(frozen=True)
class OptionGroup:
    """A section of a command's options. `names`: its options, the required ones first."""

    name: str
    title: str
    names: list[str]


def option_groups(options: type) -> list[OptionGroup]:
    """The groups of a dataclass of options, in the order of its help. Classes may share a GROUP."""
    lineage = [cls for cls in options.__mro__ if "GROUP" in vars(cls)]
    titles: dict[str, str] = {}
    for cls in lineage:
        titles.setdefault(vars(cls)["GROUP"], (cls.__doc__ or "").strip().splitlines()[0].removesuffix("."))
    titles[GENERAL] = "General" if titles else "Options"
    members: dict[str, list[str]] = {name: [] for name in titles}
    required = required_options(options)
    for item in fields(options):
        # The last one is the base that introduced the option.
        owners = [cls for cls in lineage if item.name in vars(cls).get("__annotations__", {})]
        members[vars(owners[-1])["GROUP"] if owners else GENERAL].append(item.name)
    groups = [
        OptionGroup(name, titles[name], sorted(names, key=lambda name: name not in required))
        for name, names in members.items()
        if names
    ]
    return sorted(groups, key=lambda group: required.isdisjoint(group.names))


def required_options(options: type) -> set[str]:
    """Options without a default."""
    return {
        item.name for item in fields(options) if item.default is MISSING and item.default_factory is MISSING
    }


def by_group(options: Any) -> dict[str, dict[str, Any]]:
    """The values of a dataclass of options as nested sections, as a YAML file may hold them."""
    values = {
        name: list(value) if isinstance(value, tuple) else value for name, value in asdict(options).items()
    }
    return {
        group.name: {name: values[name] for name in group.names} for group in option_groups(type(options))
    }
