"""The final judgement on the test images, of one model or an ensemble; or, before it, on what the runs held out."""

import time
from dataclasses import replace
from pathlib import Path

import torch

from run.data import (
    class_table,
    evaluation_loader,
    held_out_samples,
    labelled_test_samples,
    make_dataset,
)
from src.errors import UserError
from src.inference import Flips
from train_utils import checkpoint as checkpoints
from train_utils import judge, summarize
from train_utils.cli.model_flags import describe_model
from train_utils.distributed_utils import broadcast_from_rank_zero, is_main_process, log
from train_utils.reporting import report
from train_utils.reporting import text_files as results
from train_utils.reporting.grids import draw_predictions
from train_utils.reporting.pictures import as_rgb, with_default_colours
from train_utils.reporting.report_data import ReportData
from train_utils.resume import check_classes, make_model
from transforms import eval_preset

# What --val means for the choice of the epoch and of the threshold; stands in the output of every run.
SELECTION = {
    "holdout": "validation images, which take no part in the training",
    "none": "nothing: the last weights, threshold 0.5",
    "test": "the TEST images themselves, as the tutorials do: the test scores below are flattered by it",
}


def describe_origin(paths, members, flips=False):
    """What test_scores.json says of the judged weights: files, models, epochs, what chose them, training images and flags,
    flips."""
    choices = [
        SELECTION[checkpoint["args"]["val"]] if "args" in checkpoint else "unknown: plain weights"
        for checkpoint in members
    ]
    each = {
        name: [checkpoint.get(name) for checkpoint in members]
        for name in ("model_name", "model_kwargs", "epoch", "split", "args")
    }
    each = {name: values[0] if len(values) == 1 else values for name, values in each.items()}
    return {
        "weights": [str(path) for path in paths],
        "flips": flips,
        "selection": "; ".join(dict.fromkeys(choices)),
        **each,
    }


def score_test(args, model, checkpoint, origin, samples, device, amp_dtype, begin):
    """Judges the model on the test samples, writes test_scores.json, and prints the scores. Returns the data set."""
    dataset, _ = make_dataset(
        args, samples, eval_preset(checkpoint["mean"], checkpoint["std"]), "test"
    )
    evidence = gather_evidence(args, dataset) if args.report else None
    loader = evaluation_loader(args, dataset, device)
    counts = judge(
        model,
        loader,
        device,
        args.num_classes,
        amp_dtype=amp_dtype,
        tolerance=args.tolerance,
        observe=evidence,
    )
    scores = summarize(counts, checkpoint["threshold"])
    scores = {
        name: value for name, value in scores.items() if not name.startswith("best_")
    }  # not chosen on test
    if is_main_process():
        content = {
            **results.provenance(device, time.perf_counter() - begin),
            **origin,
            "threshold": checkpoint["threshold"],
            "scores": scores,
            "images": results.image_rows([sample.name for sample in samples], counts),
        }
        results.write_json(Path(args.output_dir) / "test_scores.json", content)
        if evidence:
            report.save(
                args.report,
                f"{args.dataset}: test images",
                content,
                evidence,
                dataset.classes.names,
                lambda i: as_rgb(dataset.read(i)[0]),
            )
    log(results.score_table(scores, dataset.classes.names, checkpoint["threshold"]))
    return dataset


def gather_evidence(args, dataset):
    """What judge() fills for the report: knows the labels without any ROI, and the second observer's, where there are."""
    frames = dataset.with_samples([replace(sample, roi=None) for sample in dataset.samples])
    seconds = dataset.with_samples(
        [replace(sample, label=sample.second) for sample in dataset.samples]
    )
    every = range(len(dataset))
    return ReportData(
        args.num_classes,
        [dataset.read(i)[1] for i in every],
        [frames.read(i)[1] for i in every],
        [seconds.read(i)[1] if dataset.samples[i].second else None for i in every],
    )


def load_members(args, paths):
    """[(model, checkpoint)] of the files: the first as the flags describe it, which took their defaults from it, the others
    by their own description. Plain weights say nothing of themselves: they are of the flags' model, mean and std."""
    members = [make_model(args, paths[0])]
    for path in paths[1:]:
        checkpoint = broadcast_from_rank_zero(lambda: checkpoints.load(path))
        if "format" in checkpoint:
            members.append((checkpoints.model_of(checkpoint, path), checkpoint))
        else:
            members.append(make_model(args, path))
    for path, (_, checkpoint) in zip(paths, members):
        check_classes(args, checkpoint, path)
    plain = {
        **describe_model(args),
        "class_names": list(class_table(args).names),
        "mean": args.mean,
        "std": args.std,
        "resize": args.resize,
        "threshold": None,
    }
    return [
        (model, checkpoint if "format" in checkpoint else plain) for model, checkpoint in members
    ]


def test_only(args, device, amp_dtype, begin):
    """Scores --weights, one checkpoint or an ensemble, on the test split."""
    paths = args.weights or [args.resume]
    members = load_members(args, paths)
    if not (args.mean and args.std):
        raise UserError(
            f"{paths[0]}: does not say which mean and std it was trained with; give --mean and --std"
        )
    for path, (member, _) in zip(paths, members):
        checkpoints.prune(member, args.prune, path)
    if args.threshold is not None and args.num_classes > 2:
        raise UserError(
            f"--threshold: the model has {args.num_classes} classes; each pixel gets the most probable one"
        )
    if args.held_out:
        return score_held_out(args, paths, members, device, amp_dtype, begin)
    model, checkpoint = checkpoints.combine(paths, members)
    model = Flips(model) if args.flips else model
    checkpoint |= {"mean": args.mean, "std": args.std}
    if args.threshold is not None:
        checkpoint["threshold"] = args.threshold
    origin = describe_origin(paths, [checkpoint for _, checkpoint in members], args.flips)
    samples = labelled_test_samples(args)
    if not samples:
        raise UserError(
            f"{args.data_path}: there are no test images, or they have no labels to score by; predict.py "
            "segments them"
        )
    for folder in filter(None, (args.output_dir, args.report)):
        checkpoints.prepare_folder(folder)
    model = model.to(device, memory_format=torch.channels_last)
    dataset = score_test(args, model, checkpoint, origin, samples, device, amp_dtype, begin)
    if is_main_process():
        draw_predictions(
            Path(args.output_dir) / "predictions.png",
            model,
            dataset,
            device,
            amp_dtype,
            dataset.classes.names,
            with_default_colours(dataset.classes.colours),
        )


def score_held_out(args, paths, members, device, amp_dtype, begin):
    """Judges each model on the images that its own run held out; together they are the scores of a cross-validation.

    Writes held_out_scores.json, with the threshold that all these images choose.
    """
    parts = [
        held_out_samples(args, checkpoint, path) for path, (_, checkpoint) in zip(paths, members)
    ]
    check_one_set(paths, members, parts)
    checkpoints.prepare_folder(args.output_dir)
    counts = []
    for path, (model, checkpoint), samples in zip(paths, members, parts):
        dataset, _ = make_dataset(
            args, samples, eval_preset(checkpoint["mean"], checkpoint["std"]), f"held out by {path}"
        )
        model = (Flips(model) if args.flips else model).to(
            device, memory_format=torch.channels_last
        )
        counts.append(
            judge(
                model,
                evaluation_loader(args, dataset, device),
                device,
                args.num_classes,
                amp_dtype=amp_dtype,
                tolerance=args.tolerance,
            )
        )
        log(f"{path}: F1 {summarize(counts[-1])['f1']:.4f}")
    total = sum(counts[1:], counts[0])
    scores = summarize(total, args.threshold)
    if is_main_process():
        origin = describe_origin(paths, [checkpoint for _, checkpoint in members], args.flips)
        results.write_json(
            Path(args.output_dir) / "held_out_scores.json",
            {
                **results.provenance(device, time.perf_counter() - begin),
                **origin,
                "selection": "the held-out images choose best_threshold",
                "threshold": args.threshold,
                "scores": scores,
                "parts": [
                    {"weights": str(path), "scores": summarize(part)}
                    for path, part in zip(paths, counts)
                ],
                "images": results.image_rows(
                    [sample.name for samples in parts for sample in samples], total
                ),
            },
        )
    log(results.score_table(scores, class_table(args).names, args.threshold))
    if "best_threshold" in scores:
        log(
            f"threshold that these images choose {scores['best_threshold']:.3f}, F1 there {scores['best_f1']:.4f}"
        )


def check_one_set(paths, members, parts):
    """UserError unless the held-out samples `parts` are different images that are read alike; says which scores are flattered,
    and what is held out by none."""
    seen, known = set(), set()
    for path, (_, checkpoint), samples in zip(paths, members, parts):
        names, first = {sample.name for sample in samples}, members[0][1]
        if names & seen:
            raise UserError(
                f"{path}: a file before it has held out {', '.join(sorted(names & seen))}, too; give one file for "
                "each fold"
            )
        seen |= names
        known |= {*checkpoint["split"]["train"], *checkpoint["split"]["val"]}
        for what, own, wanted in (
            ("resize", checkpoint.get("resize"), first.get("resize")),  # older files have none
            ("in_channels", *(each["model_kwargs"]["in_channels"] for each in (checkpoint, first))),
        ):
            if own != wanted:
                raise UserError(
                    f"{path}: was trained with {what} {own}, {paths[0]} with {wanted}; images that are read in two "
                    "ways are not counted together"
                )
        args = checkpoint["args"]
        if checkpoint["epoch"] + 1 < args["epochs"]:
            log(
                f"note: {path} is of epoch {checkpoint['epoch']} of 0 to {args['epochs'] - 1}: the images that it held out chose "
                "it, which flatters it, or its run has not ended"
            )
        if args.get("weights"):
            log(
                f"note: {path} began from other weights; if those had learned from the images held out here, it is flattered"
            )
    if known - seen:
        log(
            f"note: {len(known - seen)} of the {len(known)} images are held out by none of these files: "
            f"{', '.join(sorted(known - seen)[:8])}{' …' if len(known - seen) > 8 else ''}"
        )
