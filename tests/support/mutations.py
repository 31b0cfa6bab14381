"""Hypothesis's strategies for descriptions in JSON or YAML with something wrong in them."""

import copy

from hypothesis import strategies as st

ODD = (
    *(None, True, 0, -1, 10**30, 0.5, 1e308, float("nan"), float("-inf")),
    *("", "x", "../../x", "/etc/hostname", "\ud800", "a\0b", "x" * 300),
    *([], {}, [[]], [{}], [None], [[1, 2, 3, 4]], {"counts": [1]}),
)


def mutated(description):
    """The description with one to three of its values replaced, removed or doubled."""
    return st.builds(
        _changed,
        st.just(description),
        st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(("remove", "double", *ODD)))),
    )


def _changed(description, changes):
    description = copy.deepcopy(description)
    for number, new in changes[:3]:
        places = list(_places(description))
        if not places:
            break
        parent, key = places[number % len(places)]
        if new == "remove":
            del parent[key]
        elif new == "double" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        else:
            parent[key] = copy.deepcopy(new)
    return description


def _places(value):
    """Every container in a description with each of its keys."""
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])
