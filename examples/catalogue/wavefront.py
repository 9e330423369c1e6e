"""Reads Wavefront OBJ models and their MTL materials into plain arrays, one mesh per material."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
CREASE = math.cos(math.radians(50))


@dataclass
class Material:
    """What the renderer uses of an MTL material; colours are 0..1, `opacity` is its `d`."""

    diffuse: tuple[float, ...] = (0.8, 0.8, 0.8)
    specular: tuple[float, ...] = (0.0, 0.0, 0.0)
    shininess: float = 30.0
    opacity: float = 1.0
    texture: Path | None = None


@dataclass
class Mesh:
    """Polygons of one material; corners are not shared, so every face keeps its own normals and texture coordinates.

    `points` and `normals` are (corners, 3), `coordinates` (corners, 2), `sizes` (faces,) the corners of each face.
    """

    material: Material
    points: Floats
    normals: Floats
    coordinates: Floats
    sizes: Ints


@dataclass
class _Faces:
    """Faces of one material: per corner the rows of v, vt and vn (-1: none), per face its size and smoothing group."""

    corners: list[list[int]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    smoothing: list[int] = field(default_factory=list)


def read_obj(path: Path) -> list[Mesh]:
    """Meshes of a model, by material in order of first use. Raises ValueError when the file has no face."""
    vectors: dict[str, list[list[float]]] = {"v": [], "vt": [], "vn": []}
    materials: dict[str, Material] = {}
    faces: dict[str, _Faces] = {}
    name, smoothing = "", 0
    for line in path.read_text(encoding="latin-1").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word in vectors:
            vectors[word].append([float(part) for part in rest.split()[: 2 if word == "vt" else 3]])
        elif word == "mtllib":
            materials |= read_mtl(path.parent / rest.strip())
        elif word == "usemtl":
            name = rest.strip()
        elif word == "s":
            smoothing = int(rest) if rest.strip().isdigit() else 0
        elif word == "f" and len(corners := rest.split()) > 2:
            group = faces.setdefault(name, _Faces())
            group.corners += [_corner(corner, vectors) for corner in corners]
            group.sizes.append(len(corners))
            group.smoothing.append(smoothing)
    if not faces:
        raise ValueError(f"{path}: no face")
    # Row -1, where a corner without that part points, is zeros.
    tables = {kind: np.array([*rows, [0.0] * (2 if kind == "vt" else 3)]) for kind, rows in vectors.items()}
    return [_mesh(group, tables, materials.get(name, Material())) for name, group in faces.items()]


def _corner(text: str, vectors: dict[str, list[list[float]]]) -> list[int]:
    parts = [*text.split("/"), "", ""][:3]
    # OBJ counts from 1, and back from the latest when negative.
    return [
        -1 if not part else int(part) - 1 if int(part) > 0 else len(vectors[kind]) + int(part)
        for part, kind in zip(parts, ("v", "vt", "vn"), strict=True)
    ]


def _mesh(group: _Faces, tables: dict[str, Floats], material: Material) -> Mesh:
    rows = np.array(group.corners)
    sizes = np.array(group.sizes)
    points = tables["v"][rows[:, 0]]
    across = _face_normals(points, sizes)
    length = np.linalg.norm(across, axis=1, keepdims=True)
    flat = np.repeat(across / np.maximum(length, 1e-12), sizes, axis=0)
    given = tables["vn"][rows[:, 2]]
    # The renderer decides by winding which side of a face it sees, so a normal must agree with its face.
    given = np.where(np.einsum("ij,ij->i", given, flat)[:, None] < 0, -given, given)
    normals = np.where(rows[:, 2:] >= 0, given, _smooth(rows[:, 0], np.repeat(group.smoothing, sizes), flat))
    return Mesh(material, points, normals, tables["vt"][rows[:, 1]], sizes)


def _face_normals(points: Floats, sizes: Ints) -> Floats:
    """Normals by Newell's method, which also holds for faces that are not quite plane."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    following = np.arange(len(points)) + 1
    following[starts + sizes - 1] = starts
    normals: Floats = np.add.reduceat(np.cross(points, points[following]), starts, axis=0)
    return normals


def _smooth(vertices: Ints, smoothing: Ints, flat: Floats) -> Floats:
    """Each corner's mean normal of the faces round its vertex in its smoothing group, up to the crease angle."""
    normals = flat.copy()
    order = np.lexsort((smoothing, vertices))
    keys = np.stack([vertices[order], smoothing[order]], axis=1)
    bounds = np.flatnonzero(np.any(np.diff(keys, axis=0), axis=1)) + 1
    for corners in np.split(order, bounds):
        if len(corners) > 1 and smoothing[corners[0]]:
            own = flat[corners]
            near = (own @ own.T) > CREASE
            total = near.astype(np.float64) @ own
            normals[corners] = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
    return normals


def read_mtl(path: Path) -> dict[str, Material]:
    """Materials by name; an absent file gives none, as OBJ viewers do."""
    materials: dict[str, Material] = {}
    if not path.is_file():
        return materials
    current = Material()
    for line in path.read_text(encoding="latin-1").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "newmtl":
            current = materials[rest.strip()] = Material()
        elif word == "Kd":
            current.diffuse = tuple(float(part) for part in rest.split()[:3])
        elif word == "Ks":
            current.specular = tuple(float(part) for part in rest.split()[:3])
        elif word == "Ns":
            current.shininess = float(rest)
        elif word == "d":
            current.opacity = float(rest)
        elif word == "map_Kd":
            # Some files kept the full path of their maker's disk.
            texture = path.parent / re.split(r"[/\\]", rest.strip())[-1]
            current.texture = texture if texture.is_file() else None
    return materials
