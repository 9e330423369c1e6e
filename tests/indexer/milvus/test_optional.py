"""Who does not use Milvus does not need its client."""

import subprocess
import sys

from services.local.stack import ROOT


def test_the_default_engine_never_loads_pymilvus():
    code = (
        "import sys; from services.indexer.app import indexer_application; "
        "from services.indexer.settings import IndexerSettings; indexer_application(IndexerSettings()); "
        "sys.exit(any(name.startswith(('pymilvus', 'services.indexer.milvus')) for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env={"PYTHONPATH": f"{ROOT}:{ROOT}/clients"})
