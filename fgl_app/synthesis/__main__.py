"""`python -m fgl_app.synthesis RUN`: make a run's synthetic set on Ray's workers.

A process of its own: in a simulation the server's already holds Flower's Ray, whose clients have the cores
and GPUs reserved.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fgl_app.config import parse_config
from fgl_app.progress import log_to_stdout
from fgl_app.synthesis.command import synthesize_file
from fgl_app.synthesis.job import EMBEDDINGS

log_to_stdout()
run = Path(sys.argv[1])
config = parse_config(json.loads((run / "config.json").read_text(encoding="utf-8")))
try:
    synthesize_file(run / EMBEDDINGS, run / "synthetic", config)
except (ValueError, OSError, RuntimeError) as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(1)
