"""More like a product of ours, no more than two of a category. Usage: similar.py GATEWAY COLLECTION PRODUCT_ID"""

import sys

from vitrine import Ranking, Vitrine

gateway, collection, product_id = sys.argv[1:]
with Vitrine(gateway) as shop:
    answer = shop.search(collection, product_id=product_id, k=5, ranking=Ranking(caps={"category": 2}))
    for product in answer.products:
        print(product.rank, product.product_id, product.attributes["category"], product.attributes["title"])
