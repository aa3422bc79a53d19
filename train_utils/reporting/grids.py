"""Pictures of what a model makes of the first images of a data set."""

from src.inference import decide, predict_probs
from train_utils.metrics import SegmentationCounts
from train_utils.reporting.curves import save_prediction_grid
from train_utils.reporting.pictures import as_rgb


def draw_predictions(
    path, model, dataset, device, amp_dtype, class_names, colours=None, count=4, ignore_index=255
):
    """Draws the first images with truth, prediction and errors; what is not judged is drawn as background.

    dataset: read(i) gives the raw pair, [i] the model's input, samples[i].name the title. colours: see save_prediction_grid.
    """
    rows = []
    for i, sample in enumerate(dataset.samples[:count]):
        image, target = dataset.read(i)
        probs = predict_probs(model, dataset[i][0][None].to(device), amp_dtype)
        prediction = decide(probs)[0].cpu().masked_fill(target == ignore_index, 0)
        counts = SegmentationCounts(len(class_names))
        counts.update(target, prediction, probs[0].cpu())
        rows.append(
            {
                "name": sample.name,
                "image": as_rgb(image),
                "target": target.numpy(),
                "prediction": prediction.numpy(),
                "score": counts.mean_dice(),
            }
        )
    save_prediction_grid(path, rows, class_names, colours)
