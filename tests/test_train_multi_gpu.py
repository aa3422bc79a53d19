"""Several processes on the CPU: the same results, and what follows if one fails.

torchrun itself is used where it has to start a run, to end it or to start it again.
"""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import train_multi_GPU
from src import build_model
from tests import processes
from tests.tiny import TINY, run_train
from train_utils import create_lr_scheduler, train_one_epoch
from train_utils.checkpoint import load
from train_utils.data.demo_drive import write_demo_drive
from train_utils.distributed_utils import agree_on_start, process_group, wrap_in_ddp

ROOT = Path(__file__).parent.parent
ONE_MACHINE = ("--standalone", "--nproc_per_node=2")
FAULTY = "tests/faulty_worker.py"
DRIVERLESS = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def command(launch, data, output, *options, script="train_multi_GPU.py"):
    argv = [
        "-m",
        "torch.distributed.run",
        *launch,
        script,
        "--data-path",
        data,
        "--output-dir",
        output,
        *TINY,
        *options,
    ]
    return [sys.executable, *map(str, argv)]


def torchrun(launch, data, output, *options, script="train_multi_GPU.py", **environment):
    """The finished torchrun process."""
    return subprocess.run(
        command(launch, data, output, *options, script=script),
        cwd=ROOT,
        text=True,
        timeout=300,
        capture_output=True,
        env={**os.environ, **DRIVERLESS, **environment, "PYTHONPATH": str(ROOT)},
    )


def succeed(*args, **kwargs):
    finished = torchrun(*args, **kwargs)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished


def start_ranks(ranks, data, output, *options, script="train_multi_GPU.py", **environment):
    """The finished ranks of a run, as torchrun starts them."""
    argv = script, "--data-path", data, "--output-dir", output, *TINY, *options
    return processes.torchrun(ranks, *argv, **environment)


def ranks_succeed(*args, **kwargs):
    """What rank 0 printed."""
    finished = start_ranks(*args, **kwargs)
    assert [rank.returncode for rank in finished] == [0] * len(finished), finished
    return finished[0].stdout


def epochs(folder):
    return [row["epoch"] for row in load(folder / "last_model.pth")["history"]]


@pytest.fixture(scope="module")
def trained(tiny_root, tmp_path_factory):
    """The output folder and what was printed by two processes that trained three epochs."""
    folder = tmp_path_factory.mktemp("two")
    return folder, succeed(ONE_MACHINE, tiny_root, folder, "--epochs", 3, "--batch-size", 1).stdout


# --- evaluating and training ----------------------------------------------------------------------


@pytest.mark.parametrize("num_test, ranks", [(5, 2), (5, 3), (1, 2)])
def test_scores_do_not_depend_on_the_number_of_processes(trained, tmp_path, num_test, ranks):
    """With the same number of threads: convolutions may add in another order with more."""
    data = write_demo_drive(tmp_path, num_training=2, num_test=num_test, size=(96, 104))
    options = ("--test-only", "--weights", trained[0] / "best_model.pth", "--no-amp")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each rank
    try:
        run_train(data, tmp_path / "one", *options)
    finally:
        torch.set_num_threads(threads)
    ranks_succeed(ranks, data, tmp_path / "many", *options)
    one, many = (
        json.loads((tmp_path / name / "test_scores.json").read_text()) for name in ("one", "many")
    )
    assert len(one["images"]) == num_test
    assert one["scores"] == many["scores"] and one["images"] == many["images"]


def test_one_process_writes_and_prints(trained):
    folder, out = trained
    assert out.count("epoch 2/2") == 1 and len(list(folder.glob("results2*.txt"))) == 1
    assert epochs(folder) == [0, 1, 2] and load(folder / "last_model.pth")["ranks"] == 2
    assert len(load(folder / "last_model.pth")["random_states"]) == 2
    assert {"curves.png", "predictions.png", "test_scores.json"} <= {
        path.name for path in folder.iterdir()
    }


def test_without_torchrun_it_is_one_process_like_train_py(tiny_root, tmp_path):
    argv = ["--data-path", tiny_root, "--output-dir", tmp_path / "multi", *TINY, "--epochs", 2]
    train_multi_GPU.main([str(each) for each in argv])
    run_train(tiny_root, tmp_path / "train", "--epochs", 2)
    multi, single = (
        load(tmp_path / name / "last_model.pth")["model"] for name in ("multi", "train")
    )
    assert all(torch.equal(multi[name], single[name]) for name in single)


def test_rank_zero_plans_the_steps_of_minutes(tiny_root, tmp_path):
    """Each rank measures another speed; with different lengths they would wait for each other."""
    out = ranks_succeed(2, tiny_root, tmp_path, "--minutes", 0.01, "--epochs", 3)
    checkpoint = load(tmp_path / "last_model.pth")
    assert out.count("--minutes 0.01: 20 steps in 2 epochs") == 1
    assert checkpoint["step"] == checkpoint["recipe"]["steps"] == 20 and epochs(tmp_path) == [0, 1]


def test_more_processes_than_images_still_train(tiny_root, tmp_path):
    options = ("--epochs", 1, "--folds", 2, "--fold", 0, "--batch-size", 4)
    ranks_succeed(3, tiny_root, tmp_path, *options)
    assert epochs(tmp_path) == [0]


def test_resumed_with_another_number_of_processes(trained, tiny_root, tmp_path, capsys):
    for path in trained[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    run_train(
        tiny_root, tmp_path, "--resume", "auto", "--epochs", 4, "--device", "cpu", settings=()
    )
    assert "had 2 processes and continues with 1: a step" in capsys.readouterr().out
    assert epochs(tmp_path) == [0, 1, 2, 3]


def with_frozen_batch_norm(model):
    """The model, whose BatchNorm layers stay in eval mode: no image's gradient then depends on the
    batch it is in."""
    for module in model.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)):
            module.train = lambda mode=True, module=module: module
            module.training = False
    return model


def data_of(rank, ranks, batch_size, steps, size):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(steps, ranks, batch_size, 3, *size, generator=generator)
    targets = torch.randint(0, 2, (steps, ranks, batch_size, *size), generator=generator)
    if rank is None:  # all in one process
        return list(zip(images.flatten(1, 2), targets.flatten(1, 2), strict=True))
    return list(zip(images[:, rank], targets[:, rank], strict=True))


SIZES = {"unet": (32, 32), "unet_3d": (8, 16, 12)}


def train_steps(rank, ranks, steps, accumulate=1, name="unet"):
    """Trains `steps` steps on this rank's share of the data; (loss, parameters)."""
    torch.manual_seed(0)
    model = with_frozen_batch_norm(build_model(name, in_channels=3, num_classes=2, base_c=4))
    parallel_model = wrap_in_ddp(model, torch.device("cpu"), 60)
    optimizer = torch.optim.SGD(parallel_model.parameters(), lr=0.1)
    scheduler = create_lr_scheduler(optimizer, steps, 1, warmup=False)
    loss, _ = train_one_epoch(
        parallel_model,
        optimizer,
        data_of(rank, ranks, 2, steps, SIZES[name]),
        "cpu",
        0,
        2,
        scheduler,
        accumulate=accumulate,
    )
    return loss, {name: value.detach().clone() for name, value in model.named_parameters()}


def save_trained(rank, ranks, steps, accumulate, name, folder):
    with process_group(torch.device("cpu"), 60):
        result = train_steps(rank, ranks, steps, accumulate, name)
        torch.save(result, folder / f"{rank}.pt")


def starts_of(store, ranks, late=0):
    """What agree_on_start tells the ranks, of which number `late` comes last."""

    def one(rank):
        time.sleep(0.3 * (rank == late))
        return agree_on_start(store, rank, ranks, 10)

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(one, range(ranks)))


def test_every_start_in_one_store_has_a_name_of_its_own():
    store, names = dist.HashStore(), []
    # what the earlier starts wrote stays in the store
    for ranks, late in ((3, 0), (3, 1), (3, 2), (2, 0), (3, 1)):
        found = starts_of(store, ranks, late)
        assert len(set(found)) == 1
        names.append(found[0])
    assert len(set(names)) == len(names)


def test_a_rank_that_never_starts_is_an_error():
    store = dist.HashStore()
    starts_of(store, 2)
    with pytest.raises(RuntimeError, match="rank 1 waited"):
        agree_on_start(store, 1, 2, 0.2)


@pytest.mark.parametrize(
    "steps, accumulate, name",
    [(1, 1, "unet"), (10, 1, "unet"), (6, 3, "unet"), (1, 1, "unet_3d")],
    ids=["one step", "ten steps", "accumulated", "volumes"],
)
def test_two_ranks_train_like_one_with_the_whole_batch(tmp_path, steps, accumulate, name):
    arguments = [(rank, 2, steps, accumulate, name, tmp_path) for rank in (0, 1)]
    finished = processes.run_ranks(save_trained, arguments)
    assert [rank.returncode for rank in finished] == [0, 0], finished
    (loss, first), (_, second) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    alone_loss, alone = train_steps(None, 2, steps, accumulate, name)
    assert loss == pytest.approx(alone_loss, abs=1e-5)
    assert all(torch.equal(first[name], second[name]) for name in first)
    if steps == 1:  # the rate is .1, so this is the gradient to 1e-5
        assert all((first[name] - alone[name]).abs().max() < 1e-6 for name in alone)


# --- failures -------------------------------------------------------------------------------------


def test_a_killed_worker_restarts_from_the_last_whole_epoch(tiny_root, tmp_path):
    run = succeed(
        (*ONE_MACHINE, "--max-restarts=2"),
        tiny_root,
        tmp_path / "run",
        "--epochs",
        4,
        "--batch-size",
        1,
        "--resume",
        "auto",
        script=FAULTY,
        FAULT="kill 1 2",
        FAULT_FILE=str(tmp_path / "done"),
    )
    assert (tmp_path / "done").exists() and "resumed" in run.stdout
    assert epochs(tmp_path / "run") == [0, 1, 2, 3]
    rows = (tmp_path / "run" / "results.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["0", "1", "2", "3"]


def test_an_error_on_one_rank_ends_all_with_its_message(tiny_root, tmp_path):
    """Even the rank that waits for it ends by itself: torchrun is not there to stop it."""
    fault = {"FAULT": "raise 1 1", "FAULT_FILE": str(tmp_path / "done")}
    options = ("--epochs", 3, "--batch-size", 1)
    run = start_ranks(2, tiny_root, tmp_path / "run", *options, script=FAULTY, **fault)
    assert all(rank.returncode != 0 for rank in run)
    assert "planted on rank 1" in run[1].stderr
    assert epochs(tmp_path / "run") == [0]


def test_when_torchrun_is_stopped_ranks_that_wait_end_as_well(tiny_root, tmp_path):
    """Otherwise torchrun kills the waiting ones after 30 seconds."""
    waiting = tmp_path / "waiting"
    fault = {"FAULT": "wait 1 1", "FAULT_FILE": str(waiting), "PYTHONPATH": str(ROOT)}
    options = ("--epochs", 3, "--batch-size", 1)
    launcher = subprocess.Popen(
        command(ONE_MACHINE, tiny_root, tmp_path / "run", *options, script=FAULTY),
        cwd=ROOT,
        env={**os.environ, **DRIVERLESS, **fault},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not waiting.exists():
        assert launcher.poll() is None, launcher.communicate()[0]
        time.sleep(0.1)
    launcher.terminate()
    printed, _ = launcher.communicate(timeout=25)  # its ranks hold the pipe open as well
    assert launcher.returncode != 0 and "epoch 0/2" in printed
    assert epochs(tmp_path / "run") == [0]


def test_bad_input_ends_torchrun_with_one_sentence(tiny_root, tmp_path):
    run = torchrun(ONE_MACHINE, tiny_root, tmp_path / "out", "--epochs", 0)
    assert run.returncode != 0 and not (tmp_path / "out").exists()
    assert run.stderr.count("train_multi_GPU.py: error: argument --epochs: must be at least 1") == 1


@pytest.mark.parametrize(
    "options, named",
    [
        (("--report", "report"), "--report needs a single process; run train.py without torchrun"),
        (("--epochs", 0), "--epochs"),
        (("--resume", "none.pth"), "there is no such file"),
        (("--sync-bn",), "CUDA only"),
    ],
    ids=["report", "epochs", "resume", "sync-bn"],
)
def test_bad_input_ends_all_ranks_with_one_sentence(trained, tiny_root, tmp_path, options, named):
    if "--report" in options:
        options = ("--test-only", "--weights", trained[0] / "best_model.pth", *options)
    first, second = start_ranks(2, tiny_root, tmp_path / "out", *options)
    assert first.returncode == second.returncode == 2
    errors = first.stderr + second.stderr
    assert errors.count("train_multi_GPU.py: error: ") == 1 and named in errors
    assert not (tmp_path / "out").exists() and not (ROOT / "report").exists()


def test_two_machines(tiny_root, tmp_path):
    """Two torchrun agents, each with an output folder of its own, as machines without a shared
    disk."""
    store = processes.serve_store()  # on a free port; else the first agent would serve it
    launch = (
        "--nnodes=2",
        "--nproc_per_node=1",
        "--rdzv_backend=c10d",
        f"--rdzv_endpoint=127.0.0.1:{store.port}",
        "--rdzv_conf=is_host=false",
        "--local_addr=127.0.0.1",
        "--rdzv_id=test",
    )
    agents = [
        subprocess.Popen(
            command(launch, tiny_root, tmp_path / name, "--epochs", 2, "--batch-size", 1),
            cwd=ROOT,
            env={**os.environ, **DRIVERLESS},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in ("a", "b")
    ]
    outputs = [agent.communicate(timeout=200)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], outputs
    written = [
        tmp_path / name for name in ("a", "b") if (tmp_path / name / "last_model.pth").exists()
    ]
    assert len(written) == 1 and epochs(written[0]) == [0, 1]
