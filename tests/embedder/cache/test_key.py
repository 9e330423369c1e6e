import itertools

from services.embedder.cache.key import VectorSpace
from services.embedder.crop import Crop
from vitrine.limits import MAX_TAGS
from vitrine.v1 import common_pb2

HASHES = (bytes(32), bytes(31) + b"\1")
CROPS = (Crop(), Crop(0.5), Crop(0, 0.5), Crop(0, 0, 0.5), Crop(0, 0, 1, 0.5))
FINGERPRINTS = ("a" * 64, "b" * 64)


def test_another_image_crop_or_model_has_another_key():
    digests = {
        VectorSpace(fingerprint, 8).key(content_hash, crop).digest
        for fingerprint, content_hash, crop in itertools.product(FINGERPRINTS, HASHES, CROPS)
    }
    assert len(digests) == len(FINGERPRINTS) * len(HASHES) * len(CROPS)


def test_one_crop_has_one_key_however_it_was_asked_for():
    space = VectorSpace("a" * 64, 8)
    whole = Crop.from_box(common_pb2.Box(x=-0.0, y=0.0, width=1, height=1))
    assert str(whole.left) == "-0.0"
    assert space.key(HASHES[0], whole) == space.key(HASHES[0], Crop())


def test_a_key_says_how_many_classes_are_kept():
    assert VectorSpace("a" * 64, 8, 0).key(HASHES[0], Crop()).classes == 0
    assert VectorSpace("a" * 64, 8, 7).key(HASHES[0], Crop()).classes == 7
    assert VectorSpace("a" * 64, 8, 1000).key(HASHES[0], Crop()).classes == MAX_TAGS == 100
