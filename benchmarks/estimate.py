"""How long `fitune estimate` takes, for every model of the catalogue.

    ./run bench estimate

Asks three questions of each model (training as fitune would choose, full fine-tuning, answering) in
one process with one thread, imports not counted. Prints the slowest, how many took more than two
seconds, and the process's largest memory. Before that it times whole processes, imports and all.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

LIMIT = 2.0
COLD = ("deepseek-v3", "llama-3.1-8b", "minilm-l6")
QUESTIONS: tuple[dict[str, Any], ...] = ({}, {"method": "full"}, {"inference": True})


def main() -> int:
    """Exit code 1 where an estimate took longer than `LIMIT`."""
    for name in COLD:
        command = [sys.executable, "-m", "fitune", "estimate", name, "--json"]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        print(f"whole process, {name}: {time.perf_counter() - start:.1f} s", flush=True)

    import torch

    import fitune
    import fitune.api
    from fitune.errors import FituneError
    from fitune.fitting import import_libraries
    from fitune.models.bundled import bundled_models

    torch.set_num_threads(1)
    import_libraries(adapters=True)
    models = {(m.parameters, m.config["model_type"]): m for m in bundled_models()}
    taken = []
    for model in sorted(models.values(), key=lambda m: -m.parameters):
        for question in QUESTIONS:
            start = time.perf_counter()
            try:
                fitune.estimate(model.id, **question)
            except FituneError as error:  # e.g. an encoder has nothing to answer
                print(f"{model.id} {question}: {error}")
                continue
            taken.append((time.perf_counter() - start, model.id, question))
    taken.sort(key=lambda each: -each[0])
    for seconds, name, question in taken[:10]:
        print(f"{seconds:.2f} s  {name} {question}")
    over = sum(seconds > LIMIT for seconds, *_ in taken)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(
        f"{len(taken)} estimates of {len(models)} models: median "
        f"{statistics.median(s for s, *_ in taken):.2f} s, {over} over {LIMIT:.0f} s; "
        f"at most {most:.0f} MiB of memory"
    )
    return int(over > 0)


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.exit(main())
