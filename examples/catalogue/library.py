"""Reads Sweet Home 3D's public-domain furniture library: its list of models, their makers and their files.

The library is the file `BlendSwap-CC-0.sh3f` of Debian's package `sweethome3d-furniture`: a zip with one OBJ model
per folder and a Java properties file that names, sizes and credits each of them.
"""

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

PROPERTIES = "PluginFurnitureCatalog.properties"
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Model:
    """One model as the library lists it; sizes are centimetres, `rotation` is a row-major 3x3 matrix."""

    key: str
    name: str
    category: str
    creator: str
    path: str
    width: float
    depth: float
    height: float
    elevation: float
    rotation: tuple[float, ...]

    @property
    def longest(self) -> float:
        """Its longest side in centimetres."""
        return max(self.width, self.depth, self.height)


def read_models(folder: Path) -> list[Model]:
    """Models of an unpacked library, in its own order. Raises KeyError when a model lacks a field."""
    fields: dict[int, dict[str, str]] = {}
    # Java's .properties files are ISO-8859-1 by definition.
    for line in (folder / PROPERTIES).read_text(encoding="latin-1").splitlines():
        match = re.fullmatch(r"(\w+)#(\d+)=(.*)", line.strip())
        if match:
            fields.setdefault(int(match[2]), {})[match[1]] = match[3].strip()
    return [_model(fields[number]) for number in sorted(fields)]


def _model(field: dict[str, str]) -> Model:
    path = field["model"].lstrip("/")
    rotation = tuple(float(value) for value in field["modelRotation"].split()) if "modelRotation" in field else IDENTITY
    return Model(
        key=PurePosixPath(path).stem,
        name=field["name"],
        category=field["category"],
        creator=field["creator"],
        path=path,
        width=float(field["width"]),
        depth=float(field["depth"]),
        height=float(field["height"]),
        elevation=float(field.get("elevation", 0)),
        rotation=rotation,
    )


def unpack(library: Path, folder: Path) -> None:
    """Unpacks the library once; a second call with the same folder does nothing."""
    if not (folder / PROPERTIES).is_file():
        with zipfile.ZipFile(library) as archive:
            archive.extractall(folder)


def licence_source(folder: Path, model: Model) -> str:
    """The web page of the original work when the licence file beside the model says CC0, or else an empty string.

    The library as a whole is declared CC0, but some models come without a licence file of their own, and two come
    with one that says CC-BY: only what is stated model by model is used.
    """
    for path in sorted((folder / model.path).parent.glob("*")):
        if path.suffix.lower() in (".txt", ".html"):
            text = path.read_text(encoding="utf-8", errors="replace")
            source = re.search(r"https?://(?:www\.)?blendswap\.com/blends/view/\d+", text)
            if "Creative Commons Zero" in text and source:
                return source[0]
    return ""
