import numpy as np
import pytest

from fcn_keras.data.split import LabelSet, Split
from fcn_keras.evaluation.scores import (
    Scores,
    confusion_matrix,
    evaluate,
    image_scores,
    total_scores,
)

LABELS = LabelSet(("a", "b", "c", "d"))


def by_hand(pairs):
    """The measures of Long et al., section 5, from (truth, prediction) pixels by loops."""
    count = np.zeros((4, 4))
    for truth, prediction in pairs:
        if truth != 255:
            count[truth, prediction] += 1
    t = count.sum(axis=1)
    iou = [
        count[i, i] / (t[i] + count[:, i].sum() - count[i, i]) if t[i] + count[:, i].sum() else None
        for i in range(4)
    ]
    present = [value for value in iou if value is not None]
    accuracies = [count[i, i] / t[i] for i in range(4) if t[i]]
    return {
        "pixel_accuracy": sum(count[i, i] for i in range(4)) / t.sum(),
        "mean_accuracy": sum(accuracies) / len(accuracies),
        "mean_iou": sum(present) / len(present),
        "frequency_weighted_iou": sum(t[i] * iou[i] for i in range(4) if iou[i] is not None)
        / t.sum(),
        "per_class_iou": dict(zip("abcd", iou)),
    }


def oracle(image):
    """A stand-in for a model: reads the predicted class from an image's red channel."""
    return image[..., 0]


def test_evaluate_agrees_with_loops_on_images_of_several_sizes():
    rng = np.random.default_rng(0)
    # Class d is in neither truth nor prediction; class c is predicted but never true.
    examples = []
    for size in ((5, 7), (3, 4), (6, 2)):
        prediction = rng.integers(0, 3, size).astype(np.uint8)
        truth = rng.choice([0, 1, 255], size).astype(np.uint8)
        examples.append((np.repeat(prediction[..., None], 3, axis=-1), truth))
    split = Split("val", LABELS, ("x", "y", "z"), lambda index: examples[index])
    report = evaluate(oracle, split).to_dict()
    pairs = [p for image, mask in examples for p in zip(mask.ravel(), image[..., 0].ravel())]
    expected = by_hand(pairs)
    assert report["per_class_iou"].pop("d") is None and expected["per_class_iou"].pop("d") is None
    assert report["per_class_iou"] == pytest.approx(expected["per_class_iou"])
    assert report["per_class_iou"]["c"] == 0
    for name in ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou"):
        assert report[name] == pytest.approx(expected[name])


def test_confusion_matrix_counts_exactly():
    truth = np.array([[0, 0, 1], [2, 255, 1]])
    prediction = np.array([[0, 1, 1], [2, 2, 0]])
    expected = [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    matrix = confusion_matrix(truth, prediction, 3)
    assert matrix.tolist() == expected and matrix.dtype == np.int64


def test_nothing_labelled_is_no_division_by_zero():
    report = Scores(LABELS, np.zeros((4, 4), np.int64))
    assert report.mean_iou == report.pixel_accuracy == report.frequency_weighted_iou == 0


def split_of(*examples):
    """A split of (prediction, truth) pairs whose images `oracle` reads the prediction from."""
    arrays = [(np.array(prediction, np.uint8), np.array(truth)) for prediction, truth in examples]
    pairs = [(np.repeat(prediction[..., None], 3, axis=-1), truth) for prediction, truth in arrays]
    return Split("val", LABELS, tuple("uvwxyz"[: len(pairs)]), lambda index: pairs[index])


def test_image_scores_come_worst_first_and_add_up_to_the_report():
    split = split_of(
        ([[0, 0, 1, 1]], [[0, 0, 1, 1]]),  # all correct: IoU 1
        ([[0, 0, 0, 0]], [[0, 0, 1, 1]]),  # IoU of a 2/4, of b 0: mean 1/4
        ([[2, 2]], [[255, 255]]),  # nothing to measure
        ([[0, 0, 0, 1]], [[0, 0, 1, 1]]),  # IoU of a 2/3, of b 1/2: mean 7/12
    )
    scores = image_scores(oracle, split)
    assert [(score.index, score.id) for score in scores] == [(1, "v"), (3, "x"), (0, "u")]
    assert [score.mean_iou for score in scores] == pytest.approx([1 / 4, 7 / 12, 1])
    assert [score.pixel_accuracy for score in scores] == pytest.approx([2 / 4, 3 / 4, 1])
    total, whole = total_scores(LABELS, scores), evaluate(oracle, split)
    assert total.confusion.tolist() == whole.confusion.tolist()


def test_images_of_equal_iou_are_sorted_by_pixel_accuracy():
    split = split_of(([[1, 1, 1]], [[0, 0, 0]]), ([[0, 1]], [[1, 0]]), ([[0, 1]], [[1, 0]]))
    assert [score.id for score in image_scores(oracle, split)] == ["u", "v", "w"]
    a_third = ([[0, 2, 1]], [[0, 1, 2]])  # IoU 1, 0, 0; 1/3 correct
    also_a_third = ([[0, 0, 2, 2, 1, 1]], [[0, 0, 1, 1, 2, 2]])  # the same
    fewer = ([[0, 2, 2, 1]], [[0, 1, 1, 2]])  # the same IoU, 1/4 correct
    assert [score.id for score in image_scores(oracle, split_of(a_third, also_a_third, fewer))] == [
        "w",
        "u",
        "v",
    ]


def test_a_report_of_no_images_is_empty():
    assert total_scores(LABELS, []).to_dict()["mean_iou"] == 0
