"""A small untrained CNN with a model card: a second, real embedder that runs in well under a millisecond.

Its vectors are random but fixed projections of the picture: equal pictures get equal vectors and different ones
different vectors, which is all that tests of everything around a model need.
"""

import hashlib
import itertools
from pathlib import Path
from typing import Final

import numpy as np

from models.card import (
    Attention,
    CardDraft,
    Embedding,
    Input,
    Interpolation,
    ModelCard,
    Outputs,
    Pooling,
    Preprocessing,
    Provenance,
    ResizeMode,
    seal,
)
from models.graph import ATTENTION, EMBEDDING, IMAGE, GraphBuilder, graph_sha256
from models.store import file_entry, is_current, publish

NAME: Final = "tiny"
SIZE: Final = 64
DIM: Final = 32
_CHANNELS: Final = (3, 8, 16, DIM)
_MEAN: Final = (127.5, 127.5, 127.5)
_SCALE: Final = (127.5, 127.5, 127.5)


def build_tiny(out_dir: Path, seed: int = 0, *, attends: bool = False) -> Path:
    """Build the tiny model into `out_dir/tiny` and return that folder; does nothing where it is up to date.

    Three 3x3 convolutions of stride 2 with ReLU on 64 x 64 pixels, average pooling, 32 numbers of norm 1, no logits.

    Args:
        out_dir: parent folder; created where missing.
        seed: of the random weights; another seed is another model with another fingerprint.
        attends: with the energy of each of the 8 x 8 cells as a second output, to find subjects by.

    Raises:
        OSError: the folder cannot be written.
    """
    model, card = _build(seed, attends)
    folder = out_dir / NAME
    if not is_current(folder, card):
        publish(folder, card, {card.model.file: model})
    return folder


def _build(seed: int, attends: bool) -> tuple[bytes, ModelCard]:
    random = np.random.default_rng(seed)
    graph = GraphBuilder()
    x, size = graph.pixels(IMAGE, _MEAN, _SCALE), SIZE
    parameters = hashlib.sha256()
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(_CHANNELS)):
        kernel = random.standard_normal((fan_out, fan_in, 3, 3)).astype(np.float32) * np.float32(
            np.sqrt(2 / (9 * fan_in))
        )
        bias = random.standard_normal(fan_out).astype(np.float32) * np.float32(0.1)
        parameters.update(kernel.tobytes() + bias.tobytes())
        x, size = graph.conv(x, f"conv{layer}", kernel, bias, stride=2, size=size)
        x = graph.node("Relu", [x])
    pooled = graph.node("Flatten", [graph.node("GlobalAveragePool", [x])])
    graph.l2_normalise(pooled, EMBEDDING)
    outputs = {EMBEDDING: [DIM]}
    if attends:
        channel = graph.constant("attention_channel", np.array([1], np.int64))
        graph.node("ReduceSum", [graph.node("Mul", [x, x]), channel], name=ATTENTION, keepdims=0)
        outputs[ATTENTION] = [size, size]
    model = graph.model(NAME, SIZE, outputs)
    data = model.SerializeToString(deterministic=True)
    card = seal(
        CardDraft(
            name=NAME,
            version=f"1-seed{seed}",
            licence="CC0-1.0",
            provenance=Provenance(package="vitrine", version="1", file="models/tiny.py", sha256=parameters.hexdigest()),
            model=file_entry("model.onnx", data),
            weights_sha256=graph_sha256(model),
            input=Input(tensor=IMAGE, height=SIZE, width=SIZE),
            preprocessing=Preprocessing(
                resize=ResizeMode.LETTERBOX, interpolation=Interpolation.AREA, mean=_MEAN, scale=_SCALE
            ),
            pooling=Pooling(kind="average"),
            outputs=Outputs(
                embedding=Embedding(tensor=EMBEDDING, dim=DIM),
                attention=Attention(tensor=ATTENTION, height=size, width=size) if attends else None,
            ),
        )
    )
    return data, card
