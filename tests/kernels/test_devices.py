"""Threads and devices: what is there, and one sentence for what is not."""

from __future__ import annotations

import os

import pytest

from kernels.devices import DeviceMissing, KernelRefused, thread_count, torch_device, usable_cores


def test_threads_are_those_asked_for_or_every_usable_core() -> None:
    assert thread_count(3) == 3
    assert thread_count(None) == usable_cores() >= 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this platform does not bind processes to cores")
def test_a_process_bound_to_one_core_uses_one() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert thread_count(None) == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_other_numbers_of_threads_are_refused(threads: object) -> None:
    with pytest.raises(KernelRefused, match="at least 1 thread"):
        thread_count(threads)  # type: ignore[arg-type]


def test_the_cpu_is_always_there() -> None:
    assert torch_device("cpu").type == "cpu"


def test_cuda_is_there_or_refused_in_one_sentence() -> None:
    import torch

    if torch.cuda.is_available():
        assert torch_device("cuda").type == "cuda"
        with pytest.raises(DeviceMissing, match="CUDA devices 0 to"):
            torch_device("cuda:999")
    else:
        with pytest.raises(DeviceMissing, match=r"^cuda:1 was asked for, but .*use the cpu") as refused:
            torch_device("cuda:1")
        assert isinstance(refused.value, ValueError)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["gpu", "", "meta", "cuda:x"])
def test_devices_that_kernels_do_not_know_are_refused(name: str) -> None:
    with pytest.raises(KernelRefused, match="say cpu, cuda or cuda:1"):
        torch_device(name)
