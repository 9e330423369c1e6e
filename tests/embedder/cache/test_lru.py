import gc
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from services.embedder.cache.lru import OVERHEAD_BYTES, ByteLru
from tests.embedder.cache.entries import Clock

TTL = 100.0
KEYS = st.integers(0, 7).map(lambda number: bytes([number]) * 32)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.integers(0, 1500)),
        st.tuples(st.just("get"), KEYS, st.just(0)),
        st.tuples(st.just("wait"), st.none(), st.integers(1, 60)),
    ),
    max_size=60,
)


class Model:
    """The same, said as plainly as possible: a list, last used last."""

    def __init__(self, bound):
        self.bound, self.entries = bound, []  # (key, value, expires)

    @property
    def bytes(self):
        return sum(len(value) + OVERHEAD_BYTES for _, value, _ in self.entries)

    def get(self, key, now):
        for entry in self.entries:
            if entry[0] == key:
                self.entries.remove(entry)
                if now < entry[2]:
                    self.entries.append(entry)
                    return entry[1]
        return None

    def put(self, key, value, now):
        self.entries = [entry for entry in self.entries if entry[0] != key]
        if len(value) + OVERHEAD_BYTES > self.bound:
            return
        while self.entries and (self.bytes + len(value) + OVERHEAD_BYTES > self.bound or now >= self.entries[0][2]):
            self.entries.pop(0)
        self.entries.append((key, value, now + TTL))


@given(bound=st.integers(0, 6000), steps=STEPS)
def test_it_behaves_as_the_model_and_never_exceeds_its_bound(bound, steps):
    clock = Clock()
    lru, model = ByteLru(bound, TTL, clock), Model(bound)
    for step, key, number in steps:
        if step == "put":
            value = bytes(number)
            lru.put(key, value)
            model.put(key, value, clock.now)
        elif step == "get":
            assert lru.get(key) == model.get(key, clock.now)
        else:
            clock.now += number
        assert lru.bytes == model.bytes <= bound
        assert len(lru) == len(model.entries)
    for number in range(8):
        key = bytes([number]) * 32
        assert lru.get(key) == model.get(key, clock.now)


def test_what_was_used_last_stays():
    lru = ByteLru(2 * (OVERHEAD_BYTES + 10), TTL, Clock())
    lru.put(b"a", b"1234567890")
    lru.put(b"b", bytes(10))
    assert lru.get(b"a") == b"1234567890"
    lru.put(b"c", bytes(10))
    assert lru.get(b"a") == b"1234567890"
    assert lru.get(b"b") is None


def test_evictions_count_those_that_could_still_have_been_served():
    clock = Clock()
    lru = ByteLru(2 * (OVERHEAD_BYTES + 10), TTL, clock)
    assert [lru.put(key, bytes(10)) for key in (b"a", b"b", b"c")] == [0, 0, 1]
    assert lru.get(b"a") is None
    clock.now += TTL
    assert lru.put(b"d", bytes(10)) == 0
    assert len(lru) == 1


def test_a_bound_in_bytes_is_one_of_the_memory_really_taken():
    bound = 2**20
    for size in (500, 2000, 6000):
        gc.collect()
        tracemalloc.start()
        lru = ByteLru(bound, TTL)
        for number in range(3 * bound // size):
            lru.put(number.to_bytes(32, "big"), bytes(size))
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert 0.8 * bound < taken <= bound, (size, taken / bound)
