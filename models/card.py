"""The model card: what an embedder is, precisely enough that two services embed the same picture alike.

A model is a folder with `card.json`, the ONNX file it names and, where the model classifies, a file of labels.
`python -m models.card model.onnx --name NAME …` writes such a folder for a model of your own (models/README.md).
"""

import hashlib
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

CARD_FILE: Final = "card.json"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# A file beside the card: no folders, nothing hidden, so a card cannot reach outside its folder.
PlainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]
Text = Annotated[str, Field(min_length=1, max_length=200)]
Side = Annotated[int, Field(ge=1, le=4096)]
Byte = Annotated[int, Field(ge=0, le=255)]
PerChannel = tuple[float, float, float]
# Which edition of these rules `Interpolation` describes; vectors of different editions do not mix.
RESAMPLING_REVISION: Final = 2

PositivePerChannel = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class CardError(ValueError):
    """A model folder is missing, damaged or contradicts itself; the message names the file and the field."""


class ResizeMode(StrEnum):
    """How a decoded picture of h x w pixels becomes height x width pixels."""

    LETTERBOX = "letterbox"
    """Whole picture, aspect kept: scale by min(height/h, width/w), sides rounded half up and at least 1, put in the
    middle (the spare row or column goes below and right) of a canvas of `pad_colour`."""
    SQUASH = "squash"
    """Whole picture, aspect not kept: both sides resized straight to the target."""
    CENTRE_CROP = "centre_crop"
    """The largest centred rectangle of the target's aspect (offsets rounded down), resized to the target."""


class Interpolation(StrEnum):
    """How pixels are computed, in OpenCV's terms, on uint8 RGB."""

    AREA = "area"
    """INTER_AREA where neither side grows, INTER_LINEAR otherwise."""
    LINEAR = "linear"
    """INTER_LINEAR, preceded by the halving described for CUBIC."""
    CUBIC = "cubic"
    """INTER_CUBIC. A side of at least twice the wanted length is first divided by the largest power of two that leaves
    it long enough: whole boxes of pixels averaged (INTER_AREA; what is left over goes), because a kernel of 4 x 4
    pixels aliases beyond. A JPEG's scaled decoder counts as up to three such halvings of both sides."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class File(_Strict):
    """A file beside the card."""

    file: PlainName
    sha256: Sha256

    def verify(self, folder: Path, field: str) -> None:
        """Raise CardError unless the file is there and has the recorded sha256."""
        path = folder / self.file
        try:
            with path.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise CardError(f"{field}.file: {path} cannot be read: {error.strerror}") from error
        if found != self.sha256:
            raise CardError(
                f"{field}.sha256: {path} has sha256 {found}, the card says {self.sha256}; rebuild the model"
            )


class Provenance(_Strict):
    """Where the weights come from. `package` is `local` for a model of your own."""

    package: Text
    version: Text
    file: Text
    sha256: Sha256


class Input(_Strict):
    """The graph's input tensor: [N, height, width, 3], N free."""

    tensor: Text
    height: Side
    width: Side
    layout: Literal["NHWC"] = "NHWC"
    dtype: Literal["uint8"] = "uint8"
    channels: Literal["RGB"] = "RGB"


class Preprocessing(_Strict):
    """What happens to pixels. Resizing is the service's work; `(x - mean) / scale` happens inside the graph.

    A graph that was published taking pixels has mean 0 and scale 1 here; what it does to them is part of its weights.
    """

    resize: ResizeMode
    interpolation: Interpolation
    pad_colour: tuple[Byte, Byte, Byte] = (255, 255, 255)
    """RGB of a letterbox's bars."""
    mean: PerChannel
    scale: PositivePerChannel


class Pooling(_Strict):
    """How the last feature map becomes one vector, inside the graph."""

    kind: Text
    parameters: dict[str, float] = Field(default_factory=dict)


class Head(_Strict):
    """What follows the pooling, inside the graph."""

    kind: Text = "none"
    normalisation: Literal["l2"] = "l2"


class Embedding(_Strict):
    """float32 [N, dim], each row of norm 1."""

    tensor: Text
    dim: Annotated[int, Field(ge=1, le=65536)]


class Logits(_Strict):
    """float32 [N, classes], before softmax. `labels` names the classes, one a line, in order."""

    tensor: Text
    classes: Annotated[int, Field(ge=1, le=1_000_000)]
    labels: File


class Attention(_Strict):
    """float32 [N, height, width], not negative: how much each cell of an even grid over the input shows of a subject.

    Where a picture's subject is, is read from it; a model without it embeds, and finds no subjects."""

    tensor: Text
    height: Annotated[int, Field(ge=2, le=64)]
    width: Annotated[int, Field(ge=2, le=64)]


class Outputs(_Strict):
    """The graph's outputs."""

    embedding: Embedding
    logits: Logits | None = None
    attention: Attention | None = None


class CardDraft(_Strict):
    """A card without its fingerprint; `seal` adds it."""

    card_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    version: Text
    licence: Text
    """SPDX expression."""
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """In what most of the arithmetic is done."""
    provenance: Provenance
    model: File
    weights_sha256: Sha256
    """What the graph computes: operators, wiring, parameters (models.graph.graph_sha256). A lighter copy keeps its
    original's value, and with it the fingerprint, only where either finds the other's vectors as well as its own
    (docs/decisions/0006-lighter-copies.md)."""
    input: Input
    preprocessing: Preprocessing
    pooling: Pooling
    head: Head = Head()
    outputs: Outputs


class ModelCard(CardDraft):
    """Everything a service must know to embed with a model, and everything an auditor asks about it."""

    fingerprint: Sha256

    @model_validator(mode="after")
    def _fingerprint_belongs(self) -> Self:
        expected = fingerprint(self)
        if self.fingerprint != expected:
            raise ValueError(
                f"fingerprint: the card says {self.fingerprint}, its fields give {expected}; "
                "the card was edited after it was written"
            )
        return self

    def verify(self, folder: Path) -> None:
        """Check every file the card names against its sha256, and that labels and classes agree.

        Raises:
            CardError: naming the field and the file.
        """
        self.model.verify(folder, "model")
        if self.outputs.logits:
            self.outputs.logits.labels.verify(folder, "outputs.logits.labels")
            self.labels(folder)

    def labels(self, folder: Path) -> tuple[str, ...]:
        """Return the class names in the order of the logits; empty where the model does not classify.

        Raises:
            CardError: the file cannot be read or has not one name for each class.
        """
        logits = self.outputs.logits
        if logits is None:
            return ()
        path = folder / logits.labels.file
        try:
            names = tuple(path.read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise CardError(f"outputs.logits.labels: {path} cannot be read: {error}") from error
        if len(names) != logits.classes:
            raise CardError(f"outputs.logits.labels: {path} has {len(names)} lines for {logits.classes} classes")
        return names


def fingerprint(card: CardDraft) -> str:
    """Return the sha256 (hex) over all that decides where a picture lands in the embedding space.

    That is the weights, the input's geometry and preprocessing, the pooling, the head and the dim. Names, versions,
    licences, file checksums and class labels do not count.
    """
    parts = {
        "weights": card.weights_sha256,
        "input": card.input.model_dump(mode="json", exclude={"tensor"}),
        "preprocessing": card.preprocessing.model_dump(mode="json"),
        "resampling": RESAMPLING_REVISION,
        "pooling": card.pooling.model_dump(mode="json"),
        "head": card.head.model_dump(mode="json"),
        "dim": card.outputs.embedding.dim,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def seal(draft: CardDraft) -> ModelCard:
    """Return the card with the fingerprint that the draft's fields give."""
    return ModelCard(**draft.model_dump(), fingerprint=fingerprint(draft))


def load_card(folder: Path) -> ModelCard:
    """Read and validate `card.json` in a model folder, fingerprint included. Call `verify` to check the files too.

    Raises:
        CardError: no such file, not JSON, a field is missing, unknown or out of range, or the fingerprint is not the
            one the fields give.
    """
    path = folder / CARD_FILE
    try:
        return ModelCard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CardError(
            f"{path} cannot be read: {error.strerror}; run `make model`, or see models/README.md"
        ) from error
    except ValidationError as error:
        raise CardError(f"{path}: {describe_problems(error)}") from error


def describe_problems(error: ValidationError) -> str:
    """Return one line naming each field that is wrong and why."""
    return "; ".join(f"{'.'.join(map(str, entry['loc'])) or 'card'}: {entry['msg']}" for entry in error.errors())


if __name__ == "__main__":
    from models.adapt import main

    main()
