"""Without a process group every helper leaves its argument as it is; with one, the ranks agree."""

import time
import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn

from tests.processes import rank_environment, run_ranks, serve_store
from train_utils.distributed_utils import (
    all_gather_objects,
    all_reduce_sum,
    broadcast_buffers,
    broadcast_from_rank_zero,
    is_distributed,
    is_main_process,
    log,
    process_group,
    rank,
    training_backend,
    world_size,
    wrap_in_ddp,
)

CPU = torch.device("cpu")


# --- a single process ----------------------------------------------------------------------------


def test_a_single_process_is_rank_0_of_1():
    assert not is_distributed()
    assert (rank(), world_size(), is_main_process()) == (0, 1, True)


def test_in_a_single_process_the_helpers_return_their_argument(capsys):
    tensor, model = torch.arange(3), nn.BatchNorm1d(2)
    assert all_reduce_sum(tensor) is tensor
    assert all_gather_objects("a") == ["a"]
    assert broadcast_from_rank_zero(lambda: "b") == "b"
    assert wrap_in_ddp(model, CPU, 60, sync_bn=True) is model
    broadcast_buffers(model)
    log("c")
    assert capsys.readouterr().out == "c\n"


def test_without_torchrun_there_is_no_process_group(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with process_group(CPU, 5):
        assert not is_distributed()


def test_gradients_on_a_gpu_go_through_nccl_where_there_is_one(monkeypatch):
    gpu = torch.device("cuda:0")
    assert training_backend(CPU) == "gloo"
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    assert training_backend(gpu) == "nccl"
    monkeypatch.setattr(dist, "is_nccl_available", lambda: False)
    assert training_backend(gpu) == "gloo"


# --- a process group -----------------------------------------------------------------------------


def test_the_group_of_torchrun_ends_with_the_block(monkeypatch):
    store = serve_store()
    for name, value in rank_environment(0, 1, store).items():
        monkeypatch.setenv(name, value)
    with process_group(CPU, 30):
        assert is_distributed() and (rank(), world_size()) == (0, 1)
        assert all_gather_objects("a") == ["a"]
    assert not is_distributed()


def fail():
    raise ValueError("no such file")


def exchange(own, folder):
    """Prints, and saves what the helpers return on this rank."""
    with process_group(CPU, 60):
        log("once")
        norm = nn.BatchNorm1d(2)
        norm.running_mean.fill_(own + 1)
        broadcast_buffers(norm)
        tensor = torch.tensor([own + 1, 10])
        found = {
            "rank": (rank(), world_size(), is_main_process()),
            "sum": all_reduce_sum(tensor).tolist(),
            "own": tensor.tolist(),
            "gathered": all_gather_objects({"rank": own}),
            "broadcast": broadcast_from_rank_zero(lambda: f"of rank {own}"),
            "buffers": norm.running_mean.tolist(),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            found["model"] = type(wrap_in_ddp(norm, CPU, 60)).__name__
        try:
            broadcast_from_rank_zero(fail)
        except (ValueError, SystemExit) as error:
            found["error"] = repr(error)
    torch.save(found, folder / f"{own}.pt")


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """What two processes exchanged: for each rank (what the helpers returned, what it printed)."""
    folder = tmp_path_factory.mktemp("ranks")
    finished = run_ranks(exchange, [(0, folder), (1, folder)])
    assert [rank.returncode for rank in finished] == [0, 0], finished
    return [(torch.load(folder / f"{own}.pt"), finished[own].stdout) for own in (0, 1)]


def test_ranks_exchange_what_they_hold(two_ranks):
    (first, _), (second, _) = two_ranks
    assert first["rank"] == (0, 2, True) and second["rank"] == (1, 2, False)
    assert first["own"] == [1, 10] and second["own"] == [2, 10]  # arguments stay the same
    for found in (first, second):
        assert found["sum"] == [3, 20]
        assert found["gathered"] == [{"rank": 0}, {"rank": 1}]
        assert found["broadcast"] == "of rank 0" and found["buffers"] == [1, 1]
        assert found["model"] == "DistributedDataParallel"


def test_only_rank_0_prints(two_ranks):
    assert [printed for _, printed in two_ranks] == ["once\n", ""]


def test_an_error_on_rank_0_is_raised_there_and_ends_the_others_silently(two_ranks):
    errors = [found["error"] for found, _ in two_ranks]
    assert errors == [repr(ValueError("no such file")), repr(SystemExit(2))]


def wait_for(path):
    while not path.exists():
        time.sleep(0.01)


def wait_for_the_other(own, folder):
    """Rank 1 is late for whatever rank 0 does, by more than the timeout."""
    (folder / f"{own}.started").touch()
    wait_for(folder / f"{1 - own}.started")  # so that neither is late at the start
    found = {}
    with process_group(CPU, 2):
        time.sleep(2.3 * own)  # reads data
        found["broadcast"] = broadcast_from_rank_zero(lambda: "read")
        time.sleep(1.3 * own)
        model = wrap_in_ddp(nn.Linear(1, 1), CPU, 1)
        model(torch.ones(1, 1)).sum().backward()
        if own == 0:
            with pytest.raises(RuntimeError) as caught:
                model(torch.ones(1, 1)).sum().backward()
            found["error"] = str(caught.value)
            (folder / "failed").touch()
        wait_for(folder / "failed")
        torch.save(found, folder / f"{own}.pt")


def test_ranks_wait_for_data_as_long_as_it_takes_but_not_for_gradients(tmp_path):
    finished = run_ranks(wait_for_the_other, [(0, tmp_path), (1, tmp_path)])
    assert [rank.returncode for rank in finished] == [0, 0], finished
    first, second = (torch.load(tmp_path / f"{own}.pt") for own in (0, 1))
    assert first["broadcast"] == second["broadcast"] == "read"
    assert "1000ms" in first["error"]
