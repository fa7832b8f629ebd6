"""The table of operators that only move values, and the sets that come from it."""

import numpy as np
import onnx.defs
import pytest
from onnx import helper

from edgeseg.graph import ops


@pytest.mark.parametrize("op", ops._MOVERS)
def test_a_row_names_an_operator_of_the_standard_and_known_roles(op: str) -> None:
    assert onnx.defs.has(op)
    inputs, roles = ops._MOVERS[op]
    assert inputs in (-1, 1)
    assert all(role in (letter, ".") for role, letter in zip(roles, "qescbi", strict=True))
    assert roles.strip(".")


def test_sets_inside_others() -> None:
    assert set(ops.RESHAPES) < set(ops.MOVES)
    assert set(ops.ID_MOVES) < set(ops.BYTE_MOVES) < set(ops.SHIFTED)
    assert set(ops.CARRIERS) < set(ops.SHIFTED)


def test_all_inputs_of_a_concat_are_data() -> None:
    assert ops.MOVES["Concat"] == -1
    assert {count for op, count in ops.MOVES.items() if op != "Concat"} == {1}


@pytest.mark.parametrize(("value", "moves"), [(0.0, True), (1.0, False), (None, False)])
def test_a_padding_moves_only_if_it_pads_zeros(value: float | None, moves: bool) -> None:
    constants = {} if value is None else {"v": np.float32(value)}
    pad = helper.make_node("Pad", ["x", "pads", "v"], ["y"])
    assert ops.moves(pad, constants.get) is moves
