"""Speed of a step beside PyTorch's: python -m experiments.speed.compare [--rounds=7] [CASE ...].

Each program runs in a process of its own; they take turns, so that whatever else the machine does
meets both alike. Prints medians of images a second and of the ratios of neighboring turns.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

from experiments.speed import cases

PROGRAMS = ("jax", "plain-jax", "torch", "torch-channels-last")


def serve(program: str, name: str, threads: int) -> None:
    """Makes a program; then does so many steps for each line and answers with the seconds."""
    case = cases.CASES[name]
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ["OMP_NUM_THREADS"] = str(threads)  # PyTorch's, which it reads when it is imported
    if program.startswith("torch"):
        import torch

        from experiments.speed import torch_step

        is_last = program == "torch-channels-last"
        step, compiled = torch_step.make(
            case, torch.channels_last if is_last else torch.contiguous_format
        )
    else:
        from experiments.speed import jax_step

        if program == "plain-jax":
            jax_step.without_forms()
        step, compiled = jax_step.make(case)
    step(), step()
    print(compiled, flush=True)
    for line in sys.stdin:
        began, of_cpu = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            step()
        print(time.perf_counter() - began, time.process_time() - of_cpu, flush=True)


class Program:
    """One program in a process of its own."""

    def __init__(self, program: str, name: str, threads: int):
        words = [sys.executable, "-m", "experiments.speed.compare", name]
        words += [f"--serve={program}", f"--threads={threads}"]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.compile_seconds = float(self._process.stdout.readline())

    def run(self, steps: int) -> tuple[float, float]:
        """Seconds of so many steps, by the clock and of processors."""
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        clock, processors = map(float, self._process.stdout.readline().split())
        return clock, processors

    def end(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def compare(name: str, programs: list[str], *, rounds: int, seconds: float, threads: int) -> None:
    """Prints a row of the table for each program; the last one is what the others are beside."""
    case = cases.CASES[name]
    made = {program: Program(program, name, threads) for program in programs}
    steps = {p: max(1, round(seconds / max(made[p].run(1)[0], 1e-3))) for p in programs}
    per_image = {p: [] for p in programs}
    for _ in range(rounds):
        for program in programs:
            clock, processors = made[program].run(steps[program])
            images = steps[program] * case.batch_size
            per_image[program].append((clock / images, processors / images))
    for program in programs:
        made[program].end()
        clock, processors = (
            sorted(b / a for (a, b) in zip(*columns, strict=True))
            for columns in (
                [[turn[i] for turn in per_image[p]] for p in (program, programs[-1])]
                for i in range(2)
            )
        )
        speed = 1 / statistics.median(turn[0] for turn in per_image[program])
        print(
            f"| {name} | {program} | {speed:.1f} | {statistics.median(clock):.2f} "
            f"({clock[0]:.2f}-{clock[-1]:.2f}) | {statistics.median(processors):.2f} "
            f"({processors[0]:.2f}-{processors[-1]:.2f}) | {case.target} | "
            f"{made[program].compile_seconds:.1f} |",
            flush=True,
        )


def main() -> None:
    """Prints the table, a case as soon as it is done."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(cases.CASES)}; default: all")
    parser.add_argument("--serve", choices=PROGRAMS, help=argparse.SUPPRESS)
    parser.add_argument("--programs", default="jax,torch", help=f"of {', '.join(PROGRAMS)}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, help="of each program")
    parser.add_argument("--seconds", type=float, default=2, help="of a turn")
    found = parser.parse_args()
    if found.serve:
        serve(found.serve, *found.cases, found.threads)
        return
    print("| case | program | images/s | of the last, by the clock | by CPU time | target | s |")
    print("|---|---|---|---|---|---|---|")
    for name in found.cases or cases.CASES:
        compare(
            name,
            found.programs.split(","),
            rounds=found.rounds,
            seconds=found.seconds,
            threads=found.threads,
        )


if __name__ == "__main__":
    main()
