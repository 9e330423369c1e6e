"""The fp16 copy of a model, for GPUs: convolutions in 16 bits, pooling, classifier and normalisation as they were."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Squares and cubes of activations, in the pooling, would leave the range of 16 bits.
_CONVOLUTIONAL = frozenset({"Conv", "Clip"})


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the fp16 copy of a network of convolutions, clips and additions, whatever stands before and after them.

    Inputs and outputs keep their types; constants that both halves use are not supported.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in half.graph.initializer}
    body: set[str] = set()
    nodes: list[onnx.NodeProto] = []

    def as_type(tensor: str, kind: int, suffix: str) -> str:
        cast = f"{tensor}_{suffix}"
        if all(cast not in node.output for node in nodes):
            nodes.append(helper.make_node("Cast", [tensor], [cast], to=kind))
        return cast

    for node in half.graph.node:
        computed = [name for name in node.input if name not in constants]
        inside = node.op_type in _CONVOLUTIONAL or (node.op_type == "Add" and set(computed) <= body)
        if inside:
            body.update(node.output)
        for place, name in enumerate(node.input):
            if inside and name in constants:
                _halve(constants[name])
            elif inside and name not in body:
                node.input[place] = as_type(name, TensorProto.FLOAT16, "fp16")
            elif not inside and name in body:
                node.input[place] = as_type(name, TensorProto.FLOAT, "fp32")
        nodes.append(node)
    del half.graph.node[:]
    half.graph.node.extend(nodes)
    onnx.checker.check_model(half, full_check=True)
    return half


def _halve(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
