"""Page after page, with asyncio. Usage: pages.py GATEWAY COLLECTION PRODUCT_ID"""

import asyncio
import sys

from vitrine import AsyncVitrine


async def main(gateway: str, collection: str, product_id: str) -> None:
    """Prints the ids of all that is found, ten a line."""
    async with AsyncVitrine(gateway) as shop:
        async for page in shop.search_pages(collection, product_id=product_id, k=10, timeout=5):
            print(*(product.product_id for product in page.products))


asyncio.run(main(*sys.argv[1:]))
