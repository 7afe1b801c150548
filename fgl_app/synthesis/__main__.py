"""`python -m fgl_app.synthesis RUN`, which `synthesize_in_subprocess` starts: generate the set of a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fgl_app.config import parse_config
from fgl_app.progress import log_to_stdout
from fgl_app.synthesis.command import FOLDER, synthesize_file
from fgl_app.synthesis.job import EMBEDDINGS, SYNTHETIC

log_to_stdout()
run = Path(sys.argv[1])
config = parse_config(json.loads((run / "config.json").read_text(encoding="utf-8")))
try:
    folder = synthesize_file(run / EMBEDDINGS, run / SYNTHETIC, config)
except (ValueError, OSError, RuntimeError) as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(1)
# The newline ends an unfinished line of another writer to the same pipe.
print(f"\n{FOLDER}{folder}")
