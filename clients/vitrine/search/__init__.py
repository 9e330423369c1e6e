"""The steps of a search, one a file; `vitrine.engine` puts them together.

checking   the request, against every documented limit
resolving  query parts into one vector (`embedding`, `reading`, `text_encoding`, `combining`) and words
asking     every shard, by vector and by words
fusing     the two rankings into one list of candidates
paging     what has been returned before, and the token that says so
facets, images, answering   what the answer carries besides
"""
