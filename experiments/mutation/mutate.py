"""Changes one thing at a time in modules around evaluation, and sees whether a test notices.

    python experiments/mutation/mutate.py [--count=120] [--seconds=120] [--modules=linear,logistic]

No file is changed: each mutant lives in a child of a process that has imported everything, which
spares most of the time. Rows of results.csv that are there already are not run again, so that a run
that was stopped goes on; delete the file to begin anew.
"""

import argparse
import ast
import contextlib
import csv
import importlib
import io
import multiprocessing
import os
import pathlib
import random
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = pathlib.Path(__file__).with_name("results.csv")
FIELDS = ("module", "line", "before", "after", "result", "seconds")

# Fast tests of a module, quick ones first.
TESTS = {
    "evaluation.logistic_regression": "evaluation/logistic_regression_test evaluation/tables_test",
    "metrics.knn": "metrics/knn_test evaluation/tables_test",
    "metrics.accuracy": "metrics/accuracy_test evaluation/tables_test",
    "evaluation.protocol": "evaluation/results_test",
    "evaluation.results": "evaluation/results_test evaluation/tables_test",
    "evaluation.train_input": "evaluation/train_input_test evaluation/tables_test",
    "evaluation.linear_probe": (
        "evaluation/linear_probe_test evaluation/tables_test evaluation/reference_test"
    ),
    "evaluation.finetune": (
        "evaluation/finetune_test evaluation/tables_test evaluation/reference_test"
    ),
    "training.train_step": "training/train_step_test",
}
COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}


class Mutant(NamedTuple):
    """A changed module.

    Attributes:
      module: its name.
      line: of the change.
      before: the expression.
      after: what it became.
      source: of the whole module.
    """

    module: str
    line: int
    before: str
    after: str
    source: str


def changes(node: ast.AST) -> Iterator[tuple[str, object, object]]:
    """Attributes of a node with what they are and what they might become."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "value", node.value, not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield "value", node.value, node.value + 1
        yield "value", node.value, node.value * 2 or -1
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        flipped = COMPARISONS[type(node.ops[0])]()
        yield "ops", node.ops, [flipped, *node.ops[1:]]
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield "op", node.op, OPERATORS[type(node.op)]()
    elif isinstance(node, ast.Call):
        for i in range(len(node.keywords)):  # an argument is left out
            yield "keywords", node.keywords, node.keywords[:i] + node.keywords[i + 1 :]
    elif isinstance(node, ast.If):
        yield "test", node.test, ast.UnaryOp(ast.Not(), node.test)


def module_path(module: str) -> pathlib.Path:
    """The file of a module such as ``metrics.knn``."""
    return (ROOT / "byol_jax").joinpath(*module.split(".")).with_suffix(".py")


def mutants(module: str) -> list[Mutant]:
    """All of a module but those in annotations, of which Python takes no notice."""
    tree = ast.parse(module_path(module).read_text())
    found = []
    for node in ast.walk(tree):
        for name, old, new in changes(node):
            shown = node.test if isinstance(node, ast.If) else node
            before = ast.unparse(shown)
            setattr(node, name, new)
            after = ast.unparse(node.test if isinstance(node, ast.If) else node)
            source = ast.unparse(ast.fix_missing_locations(tree))
            setattr(node, name, old)
            found.append(Mutant(module, node.lineno, before, after, source))
    return found


def run_tests(mutant: Mutant) -> None:
    """In a child process: exits with pytest's status, 0 if no test has noticed."""
    module = importlib.import_module(f"byol_jax.{mutant.module}")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        exec(compile(mutant.source, str(module.__file__), "exec"), module.__dict__)
        tests = [str(ROOT / "tests" / f"{name}.py") for name in TESTS[mutant.module].split()]
        status = pytest.main(["-q", "-x", "-m", "not slow", "-p", "no:cacheprovider", *tests])
    os._exit(int(status))


def judge(mutant: Mutant, seconds: float) -> str:
    """killed (a test fails), slow (no end in time) or survived."""
    child = multiprocessing.get_context("fork").Process(target=run_tests, args=(mutant,))
    child.start()
    child.join(seconds)
    if child.is_alive():
        child.kill()
        child.join()
        return "slow"
    return "killed" if child.exitcode else "survived"


def main() -> None:
    """Judges a sample of the mutants of every module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=120, help="of all modules together")
    parser.add_argument("--seconds", type=float, default=120, help="for the tests of one")
    parser.add_argument("--modules", default=",".join(TESTS))
    options = parser.parse_args()
    rows = list(csv.DictReader(RESULTS.open())) if RESULTS.exists() else []
    seen = {(row["module"], row["line"], row["before"], row["after"]) for row in rows}
    modules = options.modules.split(",")
    sys.path.insert(0, str(ROOT))
    importlib.import_module("tests.conftest")  # sets the environment before JAX is imported
    for module in ("run_linear_eval", "run_finetune", "run_transfer", "run_knn"):
        importlib.import_module(f"byol_jax.{module}")
    with RESULTS.open("a", newline="") as file:
        writer = csv.writer(file)
        if not rows:
            writer.writerow(FIELDS)
        for module in modules:
            same = module_path(module).read_text()
            if judge(Mutant(module, 0, "", "", same), options.seconds) != "survived":
                sys.exit(f"The tests of {module} fail or take too long without any change.")
            everything = mutants(module)
            count = min(len(everything), options.count // len(modules))
            for mutant in random.Random(0).sample(everything, count):
                if (module, str(mutant.line), mutant.before, mutant.after) in seen:
                    continue
                start = time.monotonic()
                result = judge(mutant, options.seconds)
                took = round(time.monotonic() - start, 1)
                writer.writerow([*mutant[:4], result, took])
                file.flush()
                print(module, mutant.line, mutant.before, "->", mutant.after, result, flush=True)


if __name__ == "__main__":
    main()
