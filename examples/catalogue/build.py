"""Builds the sample catalogue: renders public-domain furniture into product pictures and query photos.

    python -m examples.catalogue.build [--library FILE.sh3f] [--work DIR] [--out DIR] [--jobs 2]

Run it from the repository's root. It needs what the services do not, so give it an environment of its own with
`pip install vtk numpy pillow` (VTK 9.4 or newer finds EGL or OSMesa by itself: Debian's libegl1 or libosmesa6), and
the file that Debian's package `sweethome3d-furniture` installs. Every choice follows from `selection.toml` and from
the names of the models, so a second run makes the same catalogue; renders already in the work
folder are kept: delete it after a change to the camera, the lights or the models.
"""

import argparse
import shutil
import sys
import tomllib
from pathlib import Path

from PIL import Image

from examples.catalogue.angles import CLEAN_QUERIES, GALLERY, HARD_QUERIES, angles
from examples.catalogue.library import Model, licence_source, read_models, unpack
from examples.catalogue.photo import feathered, hard_photo, studio_photo
from examples.catalogue.rendering import render_all, render_path
from examples.catalogue.tables import Product, Query, seeded, write_credits, write_products, write_queries

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LIBRARY = Path("/usr/share/sweethome3d/furniture/BlendSwap-CC-0.sh3f")
TABLE_TOP_CM = 60.0  # what is no longer than this is photographed on a table, larger things in a room
CLUTTER = (3, 5)  # things beside the product
STUDIO_QUALITY, HARD_QUALITY = 88, (50, 75)


def main() -> None:
    """Renders, composes and writes the catalogue; ends with status 1 when a model cannot be rendered."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--library", type=Path, default=LIBRARY, help="BlendSwap-CC-0.sh3f")
    parser.add_argument("--work", type=Path, default=ROOT / ".vitrine" / "catalogue", help="keeps models and renders")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--jobs", type=int, default=2, help="models rendered at the same time")
    options = parser.parse_args()
    unpack(options.library, options.work / "library")
    Catalogue(options.work / "library", options.work / "renders", options.out).build(options.jobs)


class Catalogue:
    """The catalogue being built.

    Raises ValueError when `selection.toml` names a model that the library lacks or does not give away.
    """

    def __init__(self, library: Path, renders: Path, out: Path) -> None:
        self.library, self.renders, self.out = library, renders, out
        selection = tomllib.loads((HERE / "selection.toml").read_text(encoding="utf-8"))
        models = [model for model in read_models(library) if licence_source(library, model)]
        self.views: list[str] = selection["queries"]["view"]
        self.hard: list[str] = selection["queries"]["hard"]
        named = {*selection["left_out"], *selection["clutter"], *self.views, *self.hard}
        if unknown := named - {model.key for model in models}:
            raise ValueError(f"selection.toml: not public-domain models of the library: {sorted(unknown)}")
        self.clutter = [model for model in models if model.key in selection["clutter"]]
        kept = [model for model in models if model.key not in {*selection["left_out"], *selection["clutter"]}]
        self.products = [Product(f"S{number:04d}", model) for number, model in enumerate(kept, 1)]

    def build(self, jobs: int) -> None:
        """Renders what is missing, then writes every picture and table anew."""
        self._render(jobs)
        for folder in ("gallery", "queries"):
            shutil.rmtree(self.out / folder, ignore_errors=True)
            (self.out / folder).mkdir(parents=True)
        for product in self.products:
            for path, name in zip(product.images, GALLERY, strict=True):
                studio_photo(self._cut_out(product.model, name)).save(
                    self.out / path, quality=STUDIO_QUALITY, optimize=True
                )
        queries = [query for product in self.products for query in self._queries(product)]
        write_products(self.out / "products.csv", self.products)
        write_queries(self.out / "queries.csv", queries)
        write_credits(self.out / "CREDITS.csv", self.library, self.products, self.clutter)
        size = sum(path.stat().st_size for path in self.out.rglob("*.jpg"))
        print(f"{len(self.products)} products, {len(queries)} queries, pictures {size / 1e6:.1f} MB")

    def _render(self, jobs: int) -> None:
        wanted = [(model, angles(model, {"g1": GALLERY["g1"]})) for model in self.clutter]
        for product in self.products:
            names = GALLERY | (CLEAN_QUERIES if product.model.key in self.views else {})
            names |= HARD_QUERIES if product.model.key in self.hard else {}
            wanted.append((product.model, angles(product.model, names)))
        failed = []
        for count, (model, reason) in enumerate(render_all(wanted, self.library, self.renders, jobs), 1):
            print(f"\rrendered {count}/{len(wanted)}  {model.key:<30}", end="", file=sys.stderr, flush=True)
            if reason:
                failed.append(f"{model.key}: {reason}")
        print(file=sys.stderr)
        if failed:
            sys.exit("\n".join(failed))

    def _queries(self, product: Product) -> list[Query]:
        made = []
        if product.model.key in self.views:
            for number, name in enumerate(CLEAN_QUERIES):
                query = Query(f"queries/{product.product_id}_v{number}.jpg", product, "view")
                photo = studio_photo(self._cut_out(product.model, name))
                photo.save(self.out / query.image, quality=STUDIO_QUALITY, optimize=True)
                made.append(query)
        if product.model.key in self.hard:
            for number, name in enumerate(HARD_QUERIES):
                query = Query(f"queries/{product.product_id}_h{number}.jpg", product, "hard")
                self._hard(product.model, name).save(
                    self.out / query.image,
                    quality=int(seeded(query.image).integers(*HARD_QUALITY)),
                    optimize=True,
                )
                made.append(query)
        return made

    def _hard(self, model: Model, name: str) -> Image.Image:
        rng = seeded(f"{model.key}/{name}")
        table = model.longest <= TABLE_TOP_CM
        # Clutter is never a product, so that each photo has one right answer.
        fitting = [other for other in self.clutter if (other.longest <= TABLE_TOP_CM) == table]
        picked = rng.permutation(len(fitting))[: int(rng.integers(CLUTTER[0], CLUTTER[1] + 1))]
        clutter = [self._cut_out(fitting[index], "g1") for index in picked]
        return hard_photo(self._cut_out(model, name), clutter, table, rng)

    def _cut_out(self, model: Model, name: str) -> Image.Image:
        with Image.open(render_path(self.renders, model, name)) as picture:
            return feathered(picture.convert("RGBA"))


if __name__ == "__main__":
    main()
