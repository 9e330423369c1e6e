"""A sample of products depends on the products and the seed, and on nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from vitrine.collections.sample import Sample

keys = st.lists(st.tuples(st.text(max_size=3), st.text(max_size=2)), unique=True, max_size=60)


def sample(keys, n, seed=0):
    found = Sample(n, seed)
    for key in keys:
        found.offer(key)
    return found.chosen()


@given(keys, st.integers(1, 20), st.randoms(use_true_random=False))
def test_the_order_of_the_keys_does_not_matter(stored, n, random):
    expected = sample(stored, n)
    random.shuffle(stored)
    assert sample(stored, n) == expected


@given(keys, st.integers(1, 20))
def test_an_image_each_of_n_products(stored, n):
    chosen = sample(stored, n)
    products = [product_id for product_id, _ in chosen]
    assert len(set(products)) == len(products) == min(n, len({product_id for product_id, _ in stored}))
    assert set(chosen) <= set(stored)


@given(keys, st.integers(1, 19))
def test_a_smaller_sample_is_the_beginning_of_a_larger_one(stored, n):
    assert sample(stored, n + 1)[:n] == sample(stored, n)


def test_every_product_and_image_has_the_same_chance():
    stored = [(f"P{product}", f"I{image}") for product in range(20) for image in range(3)]
    products, images = dict.fromkeys(range(20), 0), dict.fromkeys(range(3), 0)
    for seed in range(500):
        for product_id, image_id in sample(stored, 5, seed):
            products[int(product_id[1:])] += 1
            images[int(image_id[1:])] += 1
    # Fixed seeds, so no luck is involved: 125 +- 10 and 833 +- 24 are one standard deviation.
    assert all(80 < count < 170 for count in products.values())
    assert all(750 < count < 920 for count in images.values())
