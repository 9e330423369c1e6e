"""Which products look like this photo? Usage: search_by_photo.py GATEWAY COLLECTION PHOTO"""

import sys
from pathlib import Path

from vitrine import Vitrine

gateway, collection, photo = sys.argv[1:]
with Vitrine(gateway) as shop:
    answer = shop.search(collection, image=Path(photo).read_bytes(), auto_crop=True, k=5, filter="price < 10000")
    for product in answer.products:
        print(product.rank, product.product_id, f"{product.score:.3f}", product.attributes["title"])
    print(f"{answer.coverage.shards_answered} of {answer.coverage.shards_total} shards answered")
