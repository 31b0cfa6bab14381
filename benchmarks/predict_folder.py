"""How close `predict` over a folder comes to the speed of the network alone.

    python benchmarks/predict_folder.py --model runs/FOLDER IMAGES

Alternates in one process: `predict` (read, network, write masks) over a folder,
and the bare network over the same images in memory. Prints images per second for
both and their ratio, round by round. `--runtime` and `--precision` work as in
`predict`.
"""

import argparse
import statistics
import tempfile
import time

import numpy as np

from fcn_keras.inference.batch import jobs_of_paths, predict_jobs
from fcn_keras.inference.runtimes import load_network
from fcn_keras.inference.segmenter import Segmenter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, metavar="RUN_OR_FILE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runtime", default="tensorflow")
    parser.add_argument("--precision")
    parser.add_argument("folder")
    arguments = parser.parse_args()

    runtime = {"runtime": arguments.runtime, "precision": arguments.precision}
    segmenter = Segmenter.load(arguments.model, **runtime)
    network = load_network(segmenter.model, **runtime)
    with tempfile.TemporaryDirectory() as output:
        jobs = jobs_of_paths([arguments.folder], output)
        images = [np.asarray(job.read(), np.float32)[None] for job in jobs]
        list(predict_jobs(segmenter, jobs[:3], output))  # compiles, like the next line
        run_network(network, images[:3])
        ratios = []
        for _ in range(arguments.rounds):
            bare = rate(lambda: run_network(network, images), len(jobs))
            whole = rate(lambda: list(predict_jobs(segmenter, jobs, output)), len(jobs))
            ratios.append(whole / bare)
            print(f"predict {whole:6.2f}  bare {bare:6.2f} images/s  ratio {ratios[-1]:.3f}")
    print(f"{len(jobs)} images, median ratio {statistics.median(ratios):.3f}")


def run_network(network, images) -> None:
    for image in images:  # logits are dropped at once, as predict does
        network(image)


def rate(work, count: int) -> float:
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
