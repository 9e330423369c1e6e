"""Like this photo, and with these words. Usage: photo_and_words.py GATEWAY COLLECTION PHOTO WORDS"""

import sys
from pathlib import Path

from vitrine import ImagePart, TextPart, Vitrine

gateway, collection, photo, words = sys.argv[1:]
with Vitrine(gateway) as shop:
    answer = shop.search(collection, parts=[ImagePart(Path(photo).read_bytes()), TextPart(words, weight=2)], k=5)
    for product in answer.products:
        print(product.rank, product.product_id, product.attributes["title"])
