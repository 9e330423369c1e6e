"""`python -m models.build`: builds EfficientNet-Lite0 from its published weights, and its int8 and fp16 copies."""

import argparse
import importlib.resources
import sys
from pathlib import Path
from typing import Final, Literal

import onnx

from models import efficientnet_lite
from models.calibrate import RANGES
from models.card import (
    CARD_FILE,
    Attention,
    CardDraft,
    CardError,
    Embedding,
    Input,
    Interpolation,
    Logits,
    ModelCard,
    Outputs,
    Pooling,
    Preprocessing,
    Provenance,
    ResizeMode,
    load_card,
    seal,
)
from models.graph import ATTENTION, EMBEDDING, IMAGE, LOGITS, graph_sha256
from models.half import to_fp16
from models.quantize import quantize_int8
from models.store import file_entry, is_current, publish
from models.weights import EFFICIENTNET_LITE0, WeightsError, parse_state_dict, read_published

NAME: Final = "efficientnet-lite0"
BUILD_DIR: Final = Path(__file__).parent / "build"


# Where 8 bits cost most: docs/decisions/0006-lighter-copies.md.
KEPT_FLOAT: Final = ("_conv_stem", "_blocks.0.")


def build_efficientnet_lite0(out_dir: Path = BUILD_DIR) -> list[tuple[Path, bool]]:
    """Build the default embedder and its lighter copies below `out_dir`: `efficientnet-lite0`, `…-int8`, `…-fp16`.

    The graphs are always assembled, in memory; files are written only where a folder does not hold exactly them.

    Returns:
        Each model's folder, and whether it was written (False: it was up to date).

    Raises:
        WeightsError: the weights package is missing or its file is not the pinned one.
        OSError: a folder cannot be written, or the int8 copy's ranges cannot be read.
        ValueError: those ranges are damaged or of another model.
    """
    model = efficientnet_lite.build_graph(parse_state_dict(read_published(EFFICIENTNET_LITE0)))
    int8 = quantize_int8(model, RANGES, KEPT_FLOAT)
    space = graph_sha256(model)
    return [
        _publish(out_dir, NAME, "fp32", model, space),
        _publish(out_dir, f"{NAME}-int8", "int8", int8, graph_sha256(int8)),
        _publish(out_dir, f"{NAME}-fp16", "fp16", to_fp16(model), space),
    ]


def _publish(
    out_dir: Path, name: str, precision: Literal["fp32", "fp16", "int8"], model: onnx.ModelProto, weights_sha256: str
) -> tuple[Path, bool]:
    source = EFFICIENTNET_LITE0
    data = model.SerializeToString(deterministic=True)
    labels = importlib.resources.files("models").joinpath("labels/imagenet1k.txt").read_bytes()
    card = seal(
        CardDraft(
            name=name,
            version="1",
            licence=source.licence,
            precision=precision,
            provenance=Provenance(
                package=source.distribution, version=source.version, file=source.file, sha256=source.sha256
            ),
            model=file_entry("model.onnx", data),
            weights_sha256=weights_sha256,
            input=Input(tensor=IMAGE, height=efficientnet_lite.SIZE, width=efficientnet_lite.SIZE),
            preprocessing=Preprocessing(
                resize=ResizeMode.LETTERBOX,
                interpolation=Interpolation.CUBIC,
                mean=efficientnet_lite.MEAN,
                scale=efficientnet_lite.SCALE,
            ),
            pooling=Pooling(kind=efficientnet_lite.POOLING_KIND, parameters=efficientnet_lite.POOLING),
            outputs=Outputs(
                embedding=Embedding(tensor=EMBEDDING, dim=efficientnet_lite.DIM),
                logits=Logits(
                    tensor=LOGITS, classes=efficientnet_lite.CLASSES, labels=file_entry("labels.txt", labels)
                ),
                attention=Attention(
                    tensor=ATTENTION, height=efficientnet_lite.CELLS[0], width=efficientnet_lite.CELLS[1]
                ),
            ),
        )
    )
    folder = out_dir / name
    if is_current(folder, card):
        return folder, False
    publish(folder, card, {"model.onnx": data, "labels.txt": labels})
    return folder, True


def _summary(folder: Path, card: ModelCard, written: bool) -> str:
    state = "built" if written else "up to date"
    return f"{state}: {folder} ({card.name}, {card.outputs.embedding.dim}-d, fingerprint {card.fingerprint[:12]})"


def main(arguments: list[str] | None = None) -> None:
    """Build the default model and its copies, say in one line what happened, exit 1 with a reason where it cannot."""
    parser = argparse.ArgumentParser(prog="python -m models.build", description=__doc__)
    parser.add_argument("--out", type=Path, default=BUILD_DIR, help="parent folder (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        for folder, written in build_efficientnet_lite0(options.out):
            (folder / CARD_FILE).touch()  # `make` compares times: an up-to-date model must look newer than this code
            print(_summary(folder, load_card(folder), written))
    except (WeightsError, CardError, OSError, ValueError) as error:
        sys.exit(f"models.build: {error}")


if __name__ == "__main__":
    main()
