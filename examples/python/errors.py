"""What to do about errors; TLS and a token. Usage: errors.py GATEWAY COLLECTION PHOTO [CA.pem TOKEN_FILE]"""

import sys
from pathlib import Path

from vitrine import Tls, Vitrine
from vitrine.errors import InvalidArgumentError, OverloadedError, VitrineError

gateway, collection, photo, *secrets = sys.argv[1:]
tls, token = (Tls(ca_file=secrets[0]), Path(secrets[1])) if secrets else (None, None)
with Vitrine(gateway, tls=tls, token=token) as shop:
    try:
        print(shop.search(collection, image=Path(photo).read_bytes(), timeout=2).products)
    except InvalidArgumentError as error:
        print("not worth another try:", *error.violations)
    except OverloadedError as error:
        print("come back in", error.retry_after, "s")
    except VitrineError as error:
        print(error.code.name, error.message)
