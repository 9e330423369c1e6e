"""`python -m models.build`: builds the default embedder, EfficientNet-Lite0, from its published weights."""

import argparse
import importlib.resources
import sys
from pathlib import Path
from typing import Final

from models import efficientnet_lite
from models.card import (
    CARD_FILE,
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
from models.graph import EMBEDDING, IMAGE, LOGITS, graph_sha256
from models.store import file_entry, is_current, publish
from models.weights import EFFICIENTNET_LITE0, WeightsError, parse_state_dict, read_published

NAME: Final = "efficientnet-lite0"
BUILD_DIR: Final = Path(__file__).parent / "build"


def build_efficientnet_lite0(out_dir: Path = BUILD_DIR) -> tuple[Path, bool]:
    """Build the default embedder into `out_dir/efficientnet-lite0`.

    The graph is always assembled, in memory; files are written only where the folder does not hold exactly it.

    Returns:
        The model's folder, and whether it was written (False: it was up to date).

    Raises:
        WeightsError: the weights package is missing or its file is not the pinned one.
        OSError: the folder cannot be written.
    """
    source = EFFICIENTNET_LITE0
    model = efficientnet_lite.build_graph(parse_state_dict(read_published(source)))
    data = model.SerializeToString(deterministic=True)
    labels = importlib.resources.files("models").joinpath("labels/imagenet1k.txt").read_bytes()
    card = seal(
        CardDraft(
            name=NAME,
            version="1",
            licence=source.licence,
            provenance=Provenance(
                package=source.distribution, version=source.version, file=source.file, sha256=source.sha256
            ),
            model=file_entry("model.onnx", data),
            weights_sha256=graph_sha256(model),
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
            ),
        )
    )
    folder = out_dir / NAME
    if is_current(folder, card):
        return folder, False
    publish(folder, card, {"model.onnx": data, "labels.txt": labels})
    return folder, True


def _summary(folder: Path, card: ModelCard, written: bool) -> str:
    state = "built" if written else "up to date"
    return f"{state}: {folder} ({card.name}, {card.outputs.embedding.dim}-d, fingerprint {card.fingerprint[:12]})"


def main(arguments: list[str] | None = None) -> None:
    """Build the default model, say in one line what happened, exit 1 with a reason where it cannot."""
    parser = argparse.ArgumentParser(prog="python -m models.build", description=__doc__)
    parser.add_argument("--out", type=Path, default=BUILD_DIR, help="parent folder (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        folder, written = build_efficientnet_lite0(options.out)
        (folder / CARD_FILE).touch()  # `make` compares times: an up-to-date model must look newer than this code
        print(_summary(folder, load_card(folder), written))
    except (WeightsError, CardError, OSError) as error:
        sys.exit(f"models.build: {error}")


if __name__ == "__main__":
    main()
