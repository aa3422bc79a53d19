"""The learning rate as a pure function of the optimizer step: linear warm-up, polynomial decay."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

POWER = 0.9


def poly_factor(
    step: int,
    total_steps: int,
    warmup_steps: int = 0,
    warmup_factor: float = 1e-3,
    start_step: int = 0,
    start_factor: float = 1.0,
    hold_steps: int = 0,
) -> float:
    """The factor on the base rate at optimizer step `step` ≥ 0.

    Up to warmup_steps it rises linearly from warmup_factor to 1. Then it falls as
    (1 − progress)^POWER, where progress goes from 0 at the end of the warm-up to 1 at total_steps.
    A run that was extended (see extend_plan) decays from `start_factor` at `start_step` instead of
    from 1 at the end of the warm-up. The first `hold_steps` steps of a run whose length is not
    known yet stay at warmup_factor; then the warm-up begins.
    """
    if step >= total_steps:
        return 0.0
    if step < hold_steps:
        return warmup_factor
    # A run that was extended after its warm-up does not warm up again.
    if step < warmup_steps and start_step <= warmup_steps:
        warming = step - hold_steps
        return warmup_factor + (1 - warmup_factor) * warming / (warmup_steps - hold_steps)
    begin = max(start_step, warmup_steps)
    return start_factor * min((total_steps - step) / (total_steps - begin), 1.0) ** POWER


def plan_schedule(
    num_step: int,
    epochs: int,
    warmup: bool = True,
    warmup_epochs: float = 1,
    warmup_factor: float = 1e-3,
    *,
    total_steps: int | None = None,
) -> dict:
    """The arguments of poly_factor for `epochs` epochs of `num_step` optimizer steps each.

    A dict of numbers, which a checkpoint keeps. The warm-up takes at most half of the run.
    total_steps: where the last epoch is shorter. ValueError if there is no step.
    """
    total_steps = total_steps or num_step * epochs
    if num_step < 1 or epochs < 1:
        raise ValueError(
            f"a schedule needs at least one step, got {epochs} epochs of {num_step} steps"
        )
    warmup_steps = min(round(warmup_epochs * num_step), total_steps // 2) if warmup else 0
    return {
        "total_steps": total_steps,
        "warmup_steps": warmup_steps,
        "warmup_factor": warmup_factor,
        "start_step": 0,
        "start_factor": 1.0,
    }


def plan_after_trial(trial_steps: int, total_steps: int, warmup_steps: int) -> dict:
    """The plan of a run whose length became known after `trial_steps` at the lowest rate.

    Of the rest, warmup_steps are the warm-up, at most half.
    """
    warmup_steps = min(warmup_steps, (total_steps - trial_steps) // 2)
    plan = plan_schedule(total_steps, 1, warmup=False)
    return plan | {"warmup_steps": trial_steps + warmup_steps, "hold_steps": trial_steps}


def extend_plan(plan: dict, step: int, total_steps: int, restart: bool = False) -> dict:
    """The plan of a run that continues from `step` to another end.

    The decay continues from the last learning rate used, so it never jumps up. With `restart` it
    restarts from the base rate. A run that goes back to before an earlier extension forgets it.
    """
    if step < plan["start_step"]:
        plan = {**plan, "start_step": 0, "start_factor": 1.0}
    if step <= plan["warmup_steps"]:
        return {**plan, "total_steps": total_steps}
    if restart:
        start_factor = 1.0
    else:
        start_factor = poly_factor(min(step, plan["total_steps"] - 1), **plan)
    return {
        **plan,
        "total_steps": total_steps,
        "start_step": step,
        "start_factor": start_factor,
    }


class WarmupPolyLR(LambdaLR):
    """The scheduler of a plan, from optimizer step `step` on. `plan`: see plan_schedule()."""

    def __init__(self, optimizer: Optimizer, plan: dict, step: int = 0) -> None:
        self.plan = plan
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]  # LambdaLR needs it to start at a later step
        super().__init__(optimizer, lambda now: poly_factor(now, **self.plan), last_epoch=step - 1)

    def follow(self, plan: dict) -> None:
        """Continues by another plan, from the next step on."""
        self.plan = plan
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * poly_factor(self.last_epoch, **plan)


def create_lr_scheduler(
    optimizer: Optimizer,
    num_step: int,
    epochs: int,
    warmup: bool = True,
    warmup_epochs: float = 1,
    warmup_factor: float = 1e-3,
    *,
    plan: dict | None = None,
    step: int = 0,
) -> WarmupPolyLR:
    """A scheduler to be stepped once after every optimizer step: warm-up, then poly decay.

    Args:
        optimizer: its groups' `lr` is the base rate, the highest.
        num_step: optimizer steps in an epoch.
        epochs: epochs of the run.
        warmup, warmup_epochs, warmup_factor: linear warm-up from warmup_factor · lr.
        plan: that of a resumed run, see plan_schedule(), in place of the arguments above.
        step: the optimizer step to continue from.

    ValueError if there is no step.
    """
    if plan is None:
        plan = plan_schedule(num_step, epochs, warmup, warmup_epochs, warmup_factor)
    return WarmupPolyLR(optimizer, plan, step)
