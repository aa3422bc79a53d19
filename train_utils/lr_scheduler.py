"""The learning rate as a pure function of the optimiser step: linear warm-up, then polynomial decay."""

from torch.optim.lr_scheduler import LambdaLR

POWER = 0.9


def poly_factor(
    step, total_steps, warmup_steps=0, warmup_factor=1e-3, start_step=0, start_factor=1.0
):
    """The factor on the base rate at optimiser step `step` ≥ 0.

    Up to warmup_steps it rises linearly from warmup_factor to 1; then it falls as (1 − progress)^0.9 and is 0 from
    total_steps on. A run that was given more steps in the middle (see extend) falls from `start_factor` at
    `start_step` in place of 1 at the end of the warm-up.
    """
    if step >= total_steps:
        return 0.0
    if step < warmup_steps and start_step <= warmup_steps:
        return warmup_factor + (1 - warmup_factor) * step / warmup_steps
    begin = max(start_step, warmup_steps)
    return start_factor * min((total_steps - step) / (total_steps - begin), 1.0) ** POWER


def plan_schedule(num_step, epochs, warmup=True, warmup_epochs=1, warmup_factor=1e-3):
    """The arguments of poly_factor for `epochs` epochs of `num_step` optimiser steps, as a dict that a checkpoint keeps.

    The warm-up takes at most half of the run. ValueError if there would be no step.
    """
    total = num_step * epochs
    if num_step < 1 or epochs < 1:
        raise ValueError(
            f"a schedule needs at least one step, got {epochs} epochs of {num_step} steps"
        )
    warmup_steps = min(round(warmup_epochs * num_step), total // 2) if warmup else 0
    return {
        "total_steps": total,
        "warmup_steps": warmup_steps,
        "warmup_factor": warmup_factor,
        "start_step": 0,
        "start_factor": 1.0,
    }


def extend(plan, step, total_steps, restart=False):
    """The plan for going on from `step` to another end.

    It falls from the rate last used, so the rate never jumps up; with `restart` from the base rate.
    """
    if step <= plan["warmup_steps"]:
        return {**plan, "total_steps": total_steps}
    last = 1.0 if restart else poly_factor(min(step, plan["total_steps"] - 1), **plan)
    return {**plan, "total_steps": total_steps, "start_step": step, "start_factor": last}


def schedule_from_plan(optimizer, plan, step=0):
    """A scheduler that follows the plan from `step` on, to be stepped once after every optimiser step.

    The base rate is what the optimiser's groups have as `lr` now.
    """
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return LambdaLR(optimizer, lambda step: poly_factor(step, **plan), last_epoch=step - 1)


def create_lr_scheduler(
    optimizer, num_step, epochs, warmup=True, warmup_epochs=1, warmup_factor=1e-3
):
    """The usual way: a scheduler to step once after each of num_step · epochs optimiser steps (see plan_schedule)."""
    return schedule_from_plan(
        optimizer, plan_schedule(num_step, epochs, warmup, warmup_epochs, warmup_factor)
    )
