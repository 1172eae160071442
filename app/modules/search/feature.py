"""Searching put together."""

from dataclasses import dataclass

from app.lifecycle import CrashPoint
from app.metrics import Metrics
from app.modules.groups.feature import GroupsFeature
from app.modules.search.handlers import SearchHandlers
from app.modules.search.index_repository import IndexRepository
from app.modules.search.indexer import Indexer
from app.modules.search.repository import SearchRepository
from app.modules.search.service import SearchBounds, SearchService
from app.sections import Search
from app.storage.postgres import Postgres


@dataclass(frozen=True, slots=True)
class SearchFeature:
    """`indexer` runs beside the consumer, `handlers` answer over HTTP."""

    indexer: Indexer
    handlers: SearchHandlers


def search_feature(
    postgres: Postgres, groups: GroupsFeature, crash: CrashPoint, metrics: Metrics, options: Search
) -> SearchFeature:
    """Build everything from its parts; does no I/O."""
    bounds = SearchBounds(
        query_code_points=options.query_code_points,
        query_parts=options.query_parts,
        page_max=options.page_max,
        snippet_code_points=options.snippet_code_points,
        highlights_max=options.highlights_max,
        tail_max=options.tail_max,
        looked_max=options.looked_max,
        blocks_max=options.blocks_max,
        blocks_first=options.blocks_first,
        blocks_at_once=options.blocks_at_once,
        at_once=options.at_once,
        waiting_max=options.waiting_max,
        waiting_per_user=options.waiting_per_user,
    )
    service = SearchService(SearchRepository(postgres), groups.gate, groups.states, bounds)
    indexer = Indexer(
        postgres,
        IndexRepository(postgres),
        crash,
        metrics,
        interval_s=options.index_interval_s,
        look_share=options.index_look_share,
        share=options.index_share,
        groups_max=options.index_groups_max,
        batch_max=options.index_batch_max,
        block_messages=options.block_messages,
        block_words=options.block_words,
        backoff_max_s=options.index_backoff_max_s,
    )
    return SearchFeature(indexer, SearchHandlers(service))
