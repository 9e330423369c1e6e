"""Tells what a shopper did, and reads it back. Usage: feedback.py GATEWAY COLLECTION WORDS"""

import sys

from vitrine import Vitrine

gateway, collection, words = sys.argv[1:]
with Vitrine(gateway) as shop:
    answer = shop.search(collection, text=words, user_key="shopper-17")
    shop.record_feedback(answer.query_id, answer.products[0].product_id, "click", user_key="shopper-17")
    for record in shop.feedback(collection=collection):
        print(record.kind, [(event.product_id, str(event.action), event.rank) for event in record.events])
