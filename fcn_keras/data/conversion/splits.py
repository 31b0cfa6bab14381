"""Which photographs train and which validate: as the source says, or drawn at random."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from fcn_keras.data.conversion.source import PARTS, Example, Findings
from fcn_keras.errors import UserError


def require_drawing(val: float, group_by: str | None, seed: int) -> None:
    """Raises `UserError` if a share or a seed is out of range, or a pattern is none."""
    if not 0 < val < 1:
        raise UserError(f"--val must be between 0 and 1. Received: {val}.")
    if seed < 0:
        raise UserError(f"--seed must not be negative. Received: {seed}.")
    try:
        re.compile(group_by or "")
    except re.error as error:
        raise UserError(f"--group-by {group_by}: not a regular expression ({error}).") from error


def all_splits(
    examples: Sequence[Example], val: float, group_by: str | None, seed: int, findings: Findings
) -> dict[str, list[str]]:
    """The names of each split of a new data set: the source's own, or a random choice."""
    parts: dict[str, list[str]] = {}
    for example in examples:
        parts.setdefault(example.split or "", []).append(example.name)
    if {"train", "val"} <= {*parts}:
        rest = [name for part in parts if part not in PARTS for name in parts[part]]
        if rest:
            findings.notes.append(f"{len(rest)} images, such as {rest[0]}, have no split: train.")
            parts["train"] += rest
        if group_by:
            findings.notes.append("--group-by is not used: the source's own splits are kept.")
    else:
        named = {*parts} - {""}
        pool = [name for part in parts if part != "test" for name in parts[part]]
        parts |= _random_splits(pool, val, group_by, seed)
        if named:
            findings.notes.append(
                "the source does not name both training and validation images: "
                f"{len(parts['val'])} of {len(pool)} were drawn for validation."
            )
    return {part: sorted(parts[part]) for part in PARTS if part in parts}


def further_splits(
    examples: Sequence[Example],
    lists: Mapping[str, Collection[str]],
    val: float,
    group_by: str | None,
    seed: int,
    findings: Findings,
) -> dict[str, list[str]]:
    """The names that each split of an existing data set gains.

    What is in one of its lists stays there. Other photographs take the source's split, or that
    of their group, or are drawn.
    """
    listed = {name for names in lists.values() for name in names}
    moved = [
        example.name
        for example in examples
        if example.name in listed and example.split in PARTS
        if example.name not in lists.get(example.split, ())
    ]
    if moved:
        findings.notes.append(
            f"{len(moved)} images, such as {moved[0]}, keep their split, which is not the source's."
        )
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    known = _known_groups(lists, group_by)
    groups: dict[str, list[str]] = {}
    for example in examples:
        if example.name in listed:
            continue
        group = _group(example.name, group_by)
        part = example.split if example.split in PARTS else known.get(group)
        (parts[part] if part else groups.setdefault(group, [])).append(example.name)
    wanted = round(val * sum(map(len, groups.values())))
    chosen = _drawn(groups, wanted, seed)
    for names in groups.values():
        for name in names:
            parts["val" if name in chosen else "train"].append(name)
    if {*lists.get("trainval", ())} == {*lists["train"], *lists["val"]}:
        parts["trainval"] = parts["train"] + parts["val"]
    return {part: sorted(names) for part, names in parts.items() if names}


def _known_groups(lists: Mapping[str, Collection[str]], group_by: str | None) -> dict[str, str]:
    known: dict[str, str] = {}
    for part in PARTS if group_by else ():
        for name in lists.get(part, ()):
            with contextlib.suppress(UserError):  # an earlier name may be of another kind
                known.setdefault(_group(name, group_by), part)
    return known


def _random_splits(
    names: list[str], val: float, group_by: str | None, seed: int
) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_group(name, group_by), []).append(name)
    if len(groups) < 2:
        raise UserError(
            f"--group-by {group_by} finds {len(groups)} groups in {len(names)} names. At least "
            "two are needed, one for validation."
            if group_by is not None and len(names) > 1
            else f"Photographs for training and validation: {len(names)}. At least two are needed: "
            "add some, or add these to an existing data set by --into DIR."
        )
    wanted = min(max(1, round(val * len(names))), len(names) - 1)
    chosen = _drawn(groups, wanted, seed, spared=1)
    return {
        "train": [name for name in names if name not in chosen],
        "val": [name for name in names if name in chosen],
    }


def _drawn(
    groups: Mapping[str, Sequence[str]], wanted: int, seed: int, spared: int = 0
) -> set[str]:
    """The names of groups chosen at random until there are enough, sparing some groups."""
    chosen: set[str] = set()
    keys = list(groups)
    for index in np.random.default_rng(seed).permutation(len(keys))[: len(keys) - spared]:
        if len(chosen) >= wanted:
            break
        chosen.update(groups[keys[index]])
    return chosen


def _group(name: str, pattern: str | None) -> str:
    if pattern is None:
        return name
    found = re.search(pattern, name)
    text = found and found[1 if found.re.groups else 0]
    if text is None:
        raise UserError(f"--group-by {pattern}: not found in {name!r}. Every name needs it.")
    return text
