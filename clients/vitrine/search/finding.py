"""The middle of a search: asks the shards, fuses, ranks, cuts out the page; asks for more where the page is short."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vitrine.errors import InvalidArgumentError, PreconditionError, UnavailableError, VitrineError
from vitrine.limits import MAX_K
from vitrine.merge import interleave_hits, merge_hits
from vitrine.ranking.candidates import Candidate, Context, Scorer
from vitrine.ranking.pipeline import Ranked, run_stages
from vitrine.ranking.plan import RankingPlan
from vitrine.search.answering import Degraded, coverage_of, shard_reasons
from vitrine.search.asking import Nearest, Worded, ask_nearest, ask_words, refuses_vector, require_words
from vitrine.search.checking import Options
from vitrine.search.facets import count_facets
from vitrine.search.fusing import fuse
from vitrine.search.images import read_best_vectors, read_images
from vitrine.search.observing import Observer
from vitrine.search.paging import MAX_DEPTH, Returned
from vitrine.search.resolving import Probe
from vitrine.search.text_encoding import ENCODE_TEXT
from vitrine.search.timing import Timer
from vitrine.search.together import together
from vitrine.shards import ShardSet
from vitrine.v1 import search_pb2

IMAGES = "images"
"""The stage that reads all images of the products of a page."""

# How much more the shards are asked for where stages left too many out.
_WIDER = 4
_MAX_NAMES = 1_024


@dataclass(slots=True)
class Question:
    """A checked search: what to rank by, and how."""

    options: Options
    resolve: Callable[[], Coroutine[Any, Any, Probe]] | None = None
    """Finds the vector, once; None: by words alone."""
    text: str = ""
    text_weight: float = 0.0
    text_alone: bool = False
    """There is no other part: where the vector of the text is of no use, its words are enough."""
    returned: Returned | None = None
    """By earlier pages."""
    probe: Probe | None = None
    """What `resolve` found."""

    @property
    def before(self) -> int:
        """Products on earlier pages."""
        return len(self.returned) if self.returned else 0

    @property
    def k(self) -> int:
        """Products that this page may have."""
        return min(self.options.k, MAX_DEPTH - self.before)


@dataclass(slots=True)
class Found:
    """What a search found: one page, and what is to be said of it."""

    collection: str
    page: list[Candidate]
    more: bool
    """Whether another page may follow."""
    first_rank: int
    coverage: search_pb2.Coverage
    probe: Probe | None
    degraded: list[Degraded]
    facets: list[search_pb2.Facet]
    images: Mapping[str, Sequence[search_pb2.ImageMatch]] = field(default_factory=dict)


@dataclass(slots=True)
class _Asked:
    """What the shards said when asked for so many candidates."""

    nearest: Nearest | None
    worded: Worded | None
    candidates: list[Candidate]
    exhausted: bool
    """No shard that answered has more."""

    @property
    def leading(self) -> Nearest | Worded:
        """What coverage is told of: by vector, where there is a vector."""
        found = self.nearest if self.nearest is not None else self.worded
        assert found is not None
        return found


class Finder:
    """Finds pages of products over the shards of one index."""

    def __init__(
        self,
        shards: ShardSet,
        *,
        rankings: Mapping[str, RankingPlan],
        features: Scorer | None,
        taste: Scorer | None,
        stage_seconds: float,
        observer: Observer,
    ) -> None:
        self._shards = shards
        self._rankings = rankings
        self._features = features
        self._taste = taste
        self._stage_seconds = stage_seconds
        self._observer = observer
        self._own_names: dict[str, str] = {}

    async def find(self, question: Question, timer: Timer) -> Found:
        """Answers a question.

        Raises:
            VitrineError: As `SearchEngine.search`.
        """
        options, k = question.options, question.k
        want = self._want(question, self._own_names.get(options.collection, options.collection))
        while True:
            asked = await self._ask(question, want, timer)
            own = self._own_name(options.collection, asked)
            if not asked.exhausted and want < (wanted := self._want(question, own)):
                want = wanted  # the alias turned out to be of a collection with a ranking of its own
                continue
            ranked = await self._rank(question, own, asked.candidates, timer)
            new = [
                each for each in ranked.candidates if not question.returned or each.product_id not in question.returned
            ]
            if len(new) >= k or asked.exhausted or want >= MAX_K:
                break
            want = min(MAX_K, want * _WIDER)  # stages left so many out that the page is short
        found = Found(
            collection=own,
            page=new[:k],
            more=(len(new) > k or not asked.exhausted) and len(new) > 0 and question.before + k < MAX_DEPTH,
            first_rank=question.before + 1,
            coverage=coverage_of(asked.leading, len(self._shards)),
            probe=question.probe,
            degraded=self._reasons(question, asked),
            facets=count_facets(asked.candidates, options.facets),
        )
        if question.probe is not None and question.probe.text_error is not None:
            self._observer.stage_skipped(ENCODE_TEXT, question.probe.text_error)
        skipped = dict(ranked.skipped)
        if options.with_images:
            skipped |= await self._add_images(found, timer)
        for stage, error in skipped.items():
            self._observer.stage_skipped(stage, error)
        if skipped:
            found.degraded.append(search_pb2.DEGRADED_REASON_STAGE_SKIPPED)
        return found

    async def _ask(self, question: Question, want: int, timer: Timer) -> _Asked:
        """Asks by vector and by words, as far as the question has them, at once."""
        nearest: Nearest | None = None
        worded: Worded | None = None
        if question.text:
            nearest, words = await together(
                self._ask_nearest(question, want, timer),
                ask_words(self._shards, question.options, question.text, want, timer),
            )
            worded = words
            if nearest is None:
                require_words(words, self._shards, question.options)
            elif len(words.answers) < len(self._shards) and not question.options.allow_partial:
                raise UnavailableError("the words of the query count on some shards only, and allow_partial is false")
        else:
            nearest = await self._ask_nearest(question, want, timer)
        with timer.stage("merge"):
            by_vector = by_words = None
            if nearest is not None:
                by_vector = merge_hits((answer.results[0].hits for answer in nearest.answers.values()), want)
            if worded is not None:
                by_words = interleave_hits((answer.hits for answer in worded.answers.values()), want)
            vector_weight = question.probe.weight if question.probe is not None else 0.0
            candidates = fuse(by_vector, by_words, nearest_weight=vector_weight, text_weight=question.text_weight)
        exhausted = len(by_vector or ()) < want and len(by_words or ()) < want
        return _Asked(nearest, worded, candidates, exhausted)

    async def _ask_nearest(self, question: Question, want: int, timer: Timer) -> Nearest | None:
        """Asks by vector; returns None where there are only words to search by."""
        if question.resolve is None:
            return None
        if question.probe is None:
            question.probe = await question.resolve()
        if question.probe.vector is None:
            return None
        try:
            return await ask_nearest(self._shards, question.options, question.probe.vector, want, timer)
        except (PreconditionError, InvalidArgumentError) as error:
            if not (question.text_alone and refuses_vector(error)):
                raise
            # Of another embedding space: the encoder is for other collections. Of this one, yet refused: it is broken.
            broken = None if isinstance(error, PreconditionError) else error
            question.probe = replace(question.probe, vector=None, text_error=broken)
            return None

    async def _rank(self, question: Question, own: str, candidates: Sequence[Candidate], timer: Timer) -> Ranked:
        stages = self._plan(question.options, own).stages(self._features, self._taste_of(question.options))
        context = Context(
            collection=own,
            needed=question.before + question.k + 1,
            vectors=lambda some: read_best_vectors(self._shards, own, some, timer.budget()),
            user_key=question.options.user_key,
            returned=question.returned or frozenset(),
        )
        ranked = await run_stages(stages, candidates, context, lambda: min(self._stage_seconds, timer.budget()))
        for stage, seconds in ranked.seconds.items():
            timer.add(stage, seconds)
        return ranked

    def _plan(self, options: Options, own: str) -> RankingPlan:
        configured = self._rankings.get(options.collection) or self._rankings.get(own) or RankingPlan()
        return options.ranking.apply(configured)

    def _taste_of(self, options: Options) -> Scorer | None:
        return self._taste if options.user_key else None

    def _want(self, question: Question, own: str) -> int:
        """Returns how many candidates to ask for: those to fuse, rank or count, and one to know whether more follow."""
        options = question.options
        plan = self._plan(options, own)
        fuses = bool(question.text) and question.resolve is not None
        ranks = fuses or options.facets or plan.stages(self._features, self._taste_of(options))
        return min(MAX_K, max(question.before + question.k + 1, plan.candidates if ranks else 0))

    def _own_name(self, name: str, asked: _Asked) -> str:
        """Returns the own name of the collection that answered, and remembers it."""
        found = asked.leading
        said = (found.answers[index].collection for index in sorted(found.answers))
        own = next(filter(None, said), name)
        if len(self._own_names) >= _MAX_NAMES:
            self._own_names.clear()
        self._own_names[name] = own
        return own

    def _reasons(self, question: Question, asked: _Asked) -> list[Degraded]:
        reasons = shard_reasons(asked.leading)
        words_missing = asked.worded is not None and len(asked.worded.answers) < len(self._shards)
        if words_missing or (question.probe is not None and question.probe.text_error is not None):
            reasons.append(search_pb2.DEGRADED_REASON_TEXT_INCOMPLETE)
        return reasons

    async def _add_images(self, found: Found, timer: Timer) -> dict[str, BaseException]:
        """Reads all images of the page; returns why not, where they cannot be read."""
        product_ids = [candidate.product_id for candidate in found.page]
        vector = found.probe.vector if found.probe else None
        try:
            with timer.stage(IMAGES):
                found.images = await read_images(self._shards, found.collection, product_ids, vector, timer.budget())
        except VitrineError as error:
            return {IMAGES: error}
        return {}
