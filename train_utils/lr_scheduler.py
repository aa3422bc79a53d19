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
    A run that was extended (see extend_schedule) decays from `start_factor` at `start_step` instead
    of from 1 at the end of the warm-up. The first `hold_steps` steps of a run whose length is not
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


def make_lr_schedule(
    num_step: int,
    epochs: int,
    warmup: bool = True,
    warmup_epochs: float = 1,
    warmup_factor: float = 1e-3,
    *,
    total_steps: int | None = None,
    hold_steps: int = 0,
) -> dict:
    """The arguments of poly_factor for `epochs` epochs of `num_step` optimizer steps each.

    A dict of numbers, which a checkpoint keeps. The warm-up takes at most half of the run.
    total_steps: number of steps in the run, where the last epoch is shorter. hold_steps: number of
    first steps at the lowest rate. ValueError if there is no step.
    """
    if num_step < 1 or epochs < 1:
        raise ValueError(
            f"a schedule needs at least one step, got {epochs} epochs of {num_step} steps"
        )
    total_steps = total_steps or num_step * epochs
    wanted = round(warmup_epochs * num_step) if warmup else 0
    return {
        "total_steps": total_steps,
        "warmup_steps": end_of_warmup(total_steps, wanted, hold_steps),
        "warmup_factor": warmup_factor,
        "start_step": 0,
        "start_factor": 1.0,
        "hold_steps": hold_steps,
    }


def end_of_warmup(total_steps: int, warmup_steps: int, hold_steps: int) -> int:
    """The step at which a warm-up of `warmup_steps` ends: at most half of what the hold leaves."""
    return hold_steps + min(warmup_steps, (total_steps - hold_steps) // 2)


def extend_schedule(schedule: dict, step: int, total_steps: int, restart: bool = False) -> dict:
    """The schedule of a run that continues from `step` to another end.

    The decay continues from the last learning rate used, so it never jumps up. With `restart` it
    restarts from the base rate. A run that goes back to before an earlier extension forgets it.
    """
    if step < schedule["start_step"]:
        schedule = {**schedule, "start_step": 0, "start_factor": 1.0}
    if step <= schedule["warmup_steps"]:
        return {**schedule, "total_steps": total_steps}
    if restart:
        start_factor = 1.0
    else:
        start_factor = poly_factor(min(step, schedule["total_steps"] - 1), **schedule)
    return {
        **schedule,
        "total_steps": total_steps,
        "start_step": step,
        "start_factor": start_factor,
    }


class WarmupPolyLR(LambdaLR):
    """Follows a schedule, see make_lr_schedule(), from optimizer step `step` on."""

    def __init__(self, optimizer: Optimizer, schedule: dict, step: int = 0) -> None:
        self.schedule = schedule
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]  # LambdaLR needs it to start at a later step
        super().__init__(
            optimizer, lambda now: poly_factor(now, **self.schedule), last_epoch=step - 1
        )

    def set_length(self, num_step: int, warmup_epochs: float, total_steps: int) -> None:
        """Ends the hold of a run whose length is known now: from the next step on it warms up.

        The arguments are those of make_lr_schedule().
        """
        hold_steps = self.schedule["hold_steps"]
        end = end_of_warmup(total_steps, round(warmup_epochs * num_step), hold_steps)
        self.schedule = {**self.schedule, "total_steps": total_steps, "warmup_steps": end}
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * poly_factor(self.last_epoch, **self.schedule)


def create_lr_scheduler(
    optimizer: Optimizer,
    num_step: int,
    epochs: int,
    warmup: bool = True,
    warmup_epochs: float = 1,
    warmup_factor: float = 1e-3,
    *,
    total_steps: int | None = None,
    hold_steps: int = 0,
    saved_schedule: dict | None = None,
    step: int = 0,
) -> WarmupPolyLR:
    """A scheduler to be stepped once after every optimizer step: warm-up, then poly decay.

    Args:
        optimizer: its groups' `lr` is the base rate, the highest.
        num_step: number of optimizer steps in an epoch.
        epochs: number of epochs in the run.
        warmup, warmup_epochs, warmup_factor: linear warm-up from warmup_factor · lr.
        total_steps: number of steps in the run, where the last epoch is shorter.
        hold_steps: number of first steps at the lowest rate, where the length is not known yet.
        saved_schedule: schedule of a resumed run, which replaces all arguments but the optimizer.
        step: the optimizer step to continue from.

    ValueError if there is no step.
    """
    schedule = saved_schedule or make_lr_schedule(
        num_step,
        epochs,
        warmup,
        warmup_epochs,
        warmup_factor,
        total_steps=total_steps,
        hold_steps=hold_steps,
    )
    return WarmupPolyLR(optimizer, schedule, step)
