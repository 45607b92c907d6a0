"""joblib and Dask's local scheduler on gmpd, in programs as their users write them."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.usefixtures("no_daemon")


def lines_of(program: str, *needs: str) -> list[str]:
    """The output of a program that needs these packages."""
    for name in needs:
        pytest.importorskip(name, reason=f"{name} is not installed: pip install {name}")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_parallel_in_its_ways() -> None:
    """Results, generators, large arrays as files, nested calls, threads of libraries."""
    program = """if True:
        import os, warnings
        import joblib, numpy as np
        from joblib import Parallel, delayed
        from joblib.parallel import get_active_backend
        import gmpd.contrib.joblib

        def square(x):
            return x * x

        def kind(array):
            return type(array).__name__, array.flags.writeable, float(array.sum())

        def nested(x):
            backend, _ = get_active_backend()
            inner = Parallel(n_jobs=2)(delayed(square)(x) for _ in range(2))
            explicit = Parallel(2, backend="gmpd")._effective_n_jobs()
            return type(backend).__name__, inner, explicit, os.environ["OMP_NUM_THREADS"]

        with joblib.parallel_config("gmpd", n_jobs=2):
            print(Parallel()(delayed(square)(i) for i in range(5)))
            print(sum(Parallel()(delayed(square)(i) for i in range(2000))))
            print(list(Parallel(return_as="generator")(delayed(square)(i) for i in range(5))))
            out = Parallel(return_as="generator_unordered")(delayed(square)(i) for i in range(5))
            print(sorted(out))
            large = np.ones(200_000)
            print(set(Parallel()(delayed(kind)(large) for _ in range(2))))
            print(set(Parallel(mmap_mode="c")(delayed(kind)(large) for _ in range(2))))
            print(set(Parallel(max_nbytes=None)(delayed(kind)(large) for _ in range(2))))
            print(set(map(str, Parallel()(delayed(nested)(3) for _ in range(2)))))
        with joblib.parallel_backend("gmpd", n_jobs=2, inner_max_num_threads=3):
            print(set(Parallel()(delayed(os.getenv)("OMP_NUM_THREADS")
                  for _ in range(2))))
        first = dict(initializer=setattr, initargs=(os, "told", 7))
        with joblib.parallel_config("gmpd", n_jobs=2, **first):
            print(set(Parallel()(delayed(getattr)(os, "told") for _ in range(4))))
        print(os.environ.get("OMP_NUM_THREADS"), joblib.effective_n_jobs(1))

        def below(x):
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                return Parallel(2, backend="gmpd")._effective_n_jobs(), str(told[0].message)

        print(Parallel(2, backend="threading")(delayed(below)(i) for i in range(1)))
    """
    assert lines_of(program, "joblib", "numpy") == [
        "[0, 1, 4, 9, 16]",
        str(sum(i * i for i in range(2000))),
        "[0, 1, 4, 9, 16]",
        "[0, 1, 4, 9, 16]",
        "{('memmap', False, 200000.0)}",
        "{('memmap', True, 200000.0)}",
        "{('ndarray', True, 200000.0)}",
        "{\"('ThreadingBackend', [9, 9], 1, '1')\"}",
        "{'3'}",
        "{7}",
        "None 1",
        "[(1, 'gmpd-backed parallel loops cannot be nested below others, setting n_jobs=1')]",
    ]


def test_what_goes_wrong_is_said_and_the_next_call_works() -> None:
    program = """if True:
        import multiprocessing, os, pickle, threading, time
        import joblib
        from joblib import Parallel, delayed
        import gmpd, gmpd.contrib.joblib

        def fail(x):
            if x == 3:
                raise ValueError("three")
            return x

        def die(x):
            os._exit(3)

        def lock(x):
            return threading.Lock()

        with joblib.parallel_config("gmpd", n_jobs=2):
            try:
                Parallel()(delayed(fail)(i) for i in range(10**9))
            except ValueError as error:
                print(error, "in fail" in str(error.__cause__))
            began = time.monotonic()
            try:
                Parallel(timeout=0.5)(delayed(time.sleep)(600) for _ in range(2))
            except multiprocessing.TimeoutError:
                print("in time", time.monotonic() - began < 60)
            for bad in (delayed(die)(1), delayed(abs)(threading.Lock()), delayed(lock)(1)):
                try:
                    Parallel()(bad for _ in range(4))
                except gmpd.errors.WorkerLost as error:
                    print("exit status 3" in str(error))
                except pickle.PicklingError as error:
                    print(str(error)[:67])
                except TypeError as error:
                    print(error)
            print(Parallel()(delayed(abs)(-i) for i in range(3)))
        for wrong in ({"n_workers": 2}, {"client": None, "max_workers": 3}):
            try:
                joblib.parallel_config("gmpd", **wrong)
            except TypeError as error:
                print(error)
    """
    assert lines_of(program, "joblib") == [
        "three True",
        "in time True",
        "True",
        "Could not pickle the task to send to the workers. tasks[0][1][0] is",
        "cannot pickle '_thread.lock' object",
        "[0, 1, 2]",
        "the gmpd backend of joblib has no parameter 'n_workers': it has client,"
        " idle_worker_timeout, initializer and initargs",
        "the gmpd backend of joblib has no parameter 'max_workers': it has client,"
        " idle_worker_timeout, initializer and initargs",
    ]


def test_a_daemon_of_others_runs_at_most_n_jobs_and_its_libraries_fewer_threads() -> None:
    program = """if True:
        import joblib, numpy, threadpoolctl
        from joblib import Parallel, delayed
        import gmpd, gmpd.contrib.joblib

        def threads(x):
            numpy.ones(3)
            return [each["num_threads"] for each in threadpoolctl.threadpool_info()]

        with gmpd.Client() as client:
            with joblib.parallel_config("gmpd", client=client, inner_max_num_threads=1):
                print(joblib.effective_n_jobs(-1) == len(client.call("status")["ps"]))
                print({n for each in Parallel(2)(delayed(threads)(i) for i in range(4))
                       for n in each} <= {1})
            print(client.submit(abs, -1).result())
    """
    assert lines_of(program, "joblib", "numpy", "threadpoolctl") == ["True", "True", "1"]


def test_scikit_learn_by_its_n_jobs() -> None:
    program = """if True:
        import warnings
        warnings.simplefilter("ignore")
        import joblib
        from sklearn.datasets import make_classification
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV, cross_val_score
        import gmpd.contrib.joblib

        X, y = make_classification(1000, 150, random_state=0)  # more than a megabyte
        grid = {"C": [0.1, 1.0]}

        def all_of_it():
            search = GridSearchCV(LogisticRegression(max_iter=20), grid, cv=2, n_jobs=2).fit(X, y)
            forest = RandomForestClassifier(4, n_jobs=2, random_state=0)
            scores = cross_val_score(forest, X, y, cv=2, n_jobs=2)
            return search.best_params_, search.best_score_, scores.tolist()

        with joblib.parallel_config("gmpd"):
            found = all_of_it()
        with joblib.parallel_config("sequential"):
            print(found == all_of_it())
    """
    assert lines_of(program, "sklearn") == ["True"]


def test_dasks_local_scheduler_on_an_executor() -> None:
    program = """if True:
        import os
        import dask, dask.bag, gmpd

        @dask.delayed
        def add(x, y):
            return x + y

        def where(x):
            return os.getpid()

        if __name__ == "__main__":
            total = add(add(1, 2), add(3, 4))
            with gmpd.Executor(2) as pool:
                with dask.config.set(scheduler=pool):
                    print(total.compute())
                    bag = dask.bag.from_sequence(range(20), npartitions=4)
                    print(bag.map(lambda x: x * x).sum().compute())
                    print(os.getpid() in bag.map(where).compute())
                print(dask.compute(total, scheduler="processes", pool=pool))
    """
    assert lines_of(program, "dask") == ["10", "2470", "False", "(10,)"]
