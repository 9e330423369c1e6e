"""Renders views of one model with VTK, offscreen, each as an RGBA cut-out standing in its own soft shadow.

A program of its own, run once per model, because a model that breaks the renderer must cost only itself:

    python -m examples.catalogue.render '{"model": "a/a.obj", "rotation": [9 numbers], "shadow": true,
                                          "views": {"out/0.png": [azimuth, elevation]}}'

Angles are degrees: azimuth from the model's front to its right, elevation above its floor.
"""

import json
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import vtkmodules.vtkRenderingOpenGL2  # noqa: F401  (registers the renderer)
from PIL import Image, ImageFilter
from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy
from vtkmodules.vtkCommonCore import vtkPoints
from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkImageData, vtkPolyData
from vtkmodules.vtkFiltersCore import vtkTriangleFilter
from vtkmodules.vtkRenderingCore import (
    vtkActor,
    vtkLight,
    vtkPolyDataMapper,
    vtkRenderer,
    vtkRenderWindow,
    vtkTexture,
    vtkWindowToImageFilter,
)
from vtkmodules.vtkRenderingOpenGL2 import vtkRenderStepsPass, vtkSSAOPass

from examples.catalogue.wavefront import Floats, Material, Mesh, read_obj

SIZE = 800  # rendered this large, to be scaled down: smoother than multisampling, and the same on any driver
GAMMA = 0.85  # lifts the dark woods and blacks, as a product photographer's exposure would
FILL = 0.8  # share of the frame that the longer side of the outline takes
VIEW_ANGLE = 22.0
# Direction in camera space and strength: key from the upper left, weak fill from the right, a little from the front.
LIGHTS = (((-0.7, 1.0, 0.9), 0.62), ((1.0, 0.25, 0.6), 0.26), ((0.0, 0.2, 1.0), 0.24))
AMBIENT = 0.26


def studio(meshes: list[Mesh], rotation: Floats, shadow: bool) -> tuple[vtkRenderer, Floats]:
    """A scene with the model in the middle of a unit sphere; also returns its points in that place, (n, 3)."""
    points = np.concatenate([mesh.points for mesh in meshes]) @ rotation.T
    low, high = points.min(axis=0), points.max(axis=0)
    scale = 2.0 / np.linalg.norm(high - low)
    renderer = vtkRenderer()
    renderer.AutomaticLightCreationOff()
    renderer.SetUseDepthPeeling(True)
    renderer.SetMaximumNumberOfPeels(12)
    for direction, strength in LIGHTS:
        light = vtkLight()
        light.SetLightTypeToCameraLight()
        light.SetPosition(*direction)
        light.SetFocalPoint(0, 0, 0)
        light.SetIntensity(strength)
        renderer.AddLight(light)
    for mesh in meshes:
        placed = (mesh.points @ rotation.T - (low + high) / 2) * scale
        renderer.AddActor(_actor(_polygons(placed, mesh.normals @ rotation.T, mesh), mesh.material))
    if shadow:
        surface = np.concatenate([_samples(mesh) for mesh in meshes]) @ rotation.T
        renderer.AddActor(_contact_shadow((surface - (low + high) / 2) * scale))
    return renderer, (points - (low + high) / 2) * scale


def _polygons(points: Floats, normals: Floats, mesh: Mesh) -> vtkPolyData:
    corners = np.arange(len(points), dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(mesh.sizes)]).astype(np.int64)
    cells = vtkCellArray()
    cells.SetData(numpy_to_vtkIdTypeArray(offsets, deep=True), numpy_to_vtkIdTypeArray(corners, deep=True))
    data = _poly_data(points, cells)
    data.GetPointData().SetNormals(numpy_to_vtk(normals.astype(np.float32), deep=True))
    data.GetPointData().SetTCoords(numpy_to_vtk(mesh.coordinates.astype(np.float32), deep=True))
    triangles = vtkTriangleFilter()  # also cuts the concave faces right
    triangles.SetInputData(data)
    triangles.Update()
    return triangles.GetOutput()


def _poly_data(points: Floats, cells: vtkCellArray) -> vtkPolyData:
    holder = vtkPoints()
    holder.SetData(numpy_to_vtk(points.astype(np.float32), deep=True))
    data = vtkPolyData()
    data.SetPoints(holder)
    data.SetPolys(cells)
    return data


def _actor(data: vtkPolyData, material: Material) -> vtkActor:
    mapper = vtkPolyDataMapper()
    mapper.SetInputData(data)
    actor = vtkActor()
    actor.SetMapper(mapper)
    look = actor.GetProperty()
    look.SetColor(*material.diffuse)
    look.SetAmbient(AMBIENT)
    look.SetDiffuse(1.0)
    look.SetSpecularColor(*material.specular)
    look.SetSpecular(0.35)
    look.SetSpecularPower(min(max(material.shininess, 10.0), 100.0))
    # Clear glass on a white page would be nothing at all.
    look.SetOpacity(max(material.opacity, 0.3))
    if material.texture:
        image = np.asarray(Image.open(material.texture).convert("RGBA"))
        actor.SetTexture(_texture(image))
        look.SetColor(0.9, 0.9, 0.9)
        if image[..., 3].min() < 128:
            actor.ForceTranslucentOn()
    return actor


def _texture(image: npt.NDArray[np.uint8]) -> vtkTexture:
    data = vtkImageData()
    data.SetDimensions(image.shape[1], image.shape[0], 1)
    pixels = np.ascontiguousarray(image[::-1].reshape(-1, 4))  # VTK's first row is the bottom one
    data.GetPointData().SetScalars(numpy_to_vtk(pixels, deep=True))
    texture = vtkTexture()
    texture.SetInputData(data)
    texture.InterpolateOn()
    texture.MipmapOn()
    texture.RepeatOn()
    return texture


def _samples(mesh: Mesh, per_face: int = 64) -> Floats:
    """Points spread over every face as random weighted means of its corners, with the corners themselves."""
    starts = np.concatenate([[0], np.cumsum(mesh.sizes)[:-1]])
    weights = np.random.default_rng(0).exponential(size=(per_face, len(mesh.points), 1))
    sums = np.add.reduceat(weights * mesh.points, starts, axis=1) / np.add.reduceat(weights, starts, axis=1)
    return np.concatenate([mesh.points, sums.reshape(-1, 3)])


def _contact_shadow(points: Floats) -> vtkActor:
    """A dark, soft patch on the floor, darkest where the model comes closest to it."""
    cells, reach = 256, 1.6
    floor = points[:, 1].min()
    near = np.exp(-(points[:, 1] - floor) / 0.25)
    at = np.clip(((points[:, [2, 0]] + reach) / (2 * reach) * cells).astype(int), 0, cells - 1)
    patch = np.zeros((cells, cells))
    np.maximum.at(patch, (at[:, 0], at[:, 1]), near)
    image = Image.fromarray((patch * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(9))
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(9)), np.float64)
    rgba = np.zeros((cells, cells, 4), np.uint8)
    rgba[..., 3] = np.minimum(soft * 0.42, 110).astype(np.uint8)
    height = floor - 0.004
    square = np.array(
        [[-reach, height, -reach], [reach, height, -reach], [reach, height, reach], [-reach, height, reach]]
    )
    quad = vtkCellArray()
    quad.SetData(numpy_to_vtkIdTypeArray(np.array([0, 4]), deep=True), numpy_to_vtkIdTypeArray(np.arange(4), deep=True))
    data = _poly_data(square, quad)
    data.GetPointData().SetTCoords(numpy_to_vtk(np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32), deep=True))
    actor = vtkActor()
    mapper = vtkPolyDataMapper()
    mapper.SetInputData(data)
    actor.SetMapper(mapper)
    actor.SetTexture(_texture(rgba))
    actor.GetProperty().LightingOff()
    actor.ForceTranslucentOn()
    return actor


def aim(renderer: vtkRenderer, points: Floats, azimuth: float, elevation: float) -> None:
    """Points the camera so that the model's outline is centred and its longer side fills `FILL` of the frame."""
    turn, rise = np.radians([azimuth, elevation])
    back = np.array([np.sin(turn) * np.cos(rise), np.sin(rise), np.cos(turn) * np.cos(rise)])
    right = np.array([np.cos(turn), 0.0, -np.sin(turn)])
    up = np.cross(back, right)
    target, distance = np.zeros(3), 6.0
    half = np.tan(np.radians(VIEW_ANGLE / 2))
    for _ in range(8):  # perspective makes centre and distance depend on each other; this settles in a few rounds
        seen = points - target
        depth = distance - seen @ back
        plane = np.stack([seen @ right, seen @ up], axis=1) / depth[:, None] / half
        low, high = plane.min(axis=0), plane.max(axis=0)
        middle = (low + high) / 2 * half * distance
        target = target + middle[0] * right + middle[1] * up
        distance *= float((high - low).max()) / 2 / FILL
    camera = renderer.GetActiveCamera()
    camera.SetViewAngle(VIEW_ANGLE)
    camera.SetFocalPoint(*target)
    camera.SetPosition(*(target + distance * back))
    camera.SetViewUp(*up)
    renderer.ResetCameraClippingRange()


def cut_out(window: vtkRenderWindow, renderer: vtkRenderer) -> Image.Image:
    """The scene as RGBA: opacity and colour follow from how it looks on white and on black."""
    white, black = (_capture(window, renderer, level) for level in (1.0, 0.0))
    opacity = np.clip(1.0 - (white - black).mean(axis=2, keepdims=True), 0.0, 1.0)
    colour = np.where(opacity > 1e-3, black / np.maximum(opacity, 1e-3), 0.0)
    rgba = np.concatenate([np.clip(colour, 0.0, 1.0) ** GAMMA, opacity], axis=2)
    return Image.fromarray(np.rint(rgba * 255).astype(np.uint8), "RGBA")


def _capture(window: vtkRenderWindow, renderer: vtkRenderer, level: float) -> Floats:
    renderer.SetBackground(level, level, level)
    window.Render()
    grab = vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ReadFrontBufferOff()
    grab.Update()
    image = grab.GetOutput()
    width, height, _ = image.GetDimensions()
    pixels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1, :, :3]
    return pixels.astype(np.float64) / 255


def main() -> None:
    """Renders what the JSON argument asks for."""
    order = json.loads(sys.argv[1])
    renderer, points = studio(
        read_obj(Path(order["model"])), np.array(order["rotation"]).reshape(3, 3), order["shadow"]
    )
    occlusion = vtkSSAOPass()
    occlusion.SetDelegatePass(vtkRenderStepsPass())
    occlusion.SetRadius(0.15)
    occlusion.SetBias(0.004)
    occlusion.SetKernelSize(32)
    occlusion.BlurOn()
    renderer.SetPass(occlusion)
    window = vtkRenderWindow()
    window.SetOffScreenRendering(True)
    window.SetMultiSamples(0)
    window.SetSize(SIZE, SIZE)
    window.AddRenderer(renderer)
    for path, (azimuth, elevation) in order["views"].items():
        aim(renderer, points, azimuth, elevation)
        cut_out(window, renderer).save(path)


if __name__ == "__main__":
    main()
