"""Which product of ours is this, or none? Usage: recognise.py GATEWAY COLLECTION PHOTO"""

import sys
from pathlib import Path

from vitrine import Vitrine

gateway, collection, photo = sys.argv[1:]
with Vitrine(gateway) as shop:
    answer = shop.recognize(collection, Path(photo).read_bytes(), alternatives=3)
    print(answer.product.product_id if answer.product else "none of ours", f"confidence {answer.confidence:.2f}")
    for vote in answer.votes:
        print(f"its neighbours say {vote.attribute} = {vote.value} ({vote.confidence:.0%})")
