"""`Augmentation`: which transforms training examples go through, and in which order."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from fcn_keras.data import colors, transforms, warping

fold_in = tf.random.experimental.stateless_fold_in


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How training examples are augmented.

    Keras's preprocessing layers draw from a `SeedGenerator`, so what they do depends on the
    examples before; these transforms take a seed, and a run resumes with the same examples.

    Args:
        crop: Height and width of the random crop, taken after scaling.
        scale: Bounds of the random scale factor; `(1, 1)` keeps the size.
        flip: Whether half of the examples are mirrored left to right.
        vertical_flip: Whether half of the examples are mirrored top to bottom.
        quarter_turns: Whether examples are turned by a random multiple of 90 degrees.
        rotation: Largest angle of a rotation about the crop's centre, in degrees.
        shear: Largest angle of a shear along the rows, in degrees.
        elastic: Largest displacement of an elastic distortion along each axis, in pixels.
        class_crops: Share of the crops that have a pixel of a class chosen at random, each
            class that occurs in the image being equally likely.
        brightness: Largest change in brightness, as a fraction of 255.
        contrast: Largest relative change in contrast.
        saturation: Largest relative change in saturation.
        hue: Largest rotation of the hue, as a fraction of the colour wheel.
        grey: Probability of a grey image.
        blur: Largest standard deviation of a Gaussian blur, in pixels.
        noise: Largest standard deviation of Gaussian noise, as a fraction of 255.
        jpeg: Lowest quality of a JPEG compression; `None` for none.
        cutout: Largest sides of a rectangle that is hidden, as shares of the crop's.
        cutmix: Probability of a rectangle from another example of the batch.
        halve: Whether images are halved before anything else.
    """

    crop: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = False
    vertical_flip: bool = False
    quarter_turns: bool = False
    rotation: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0
    class_crops: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grey: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    jpeg: int | None = None
    cutout: float = 0.0
    cutmix: float = 0.0
    halve: bool = False

    def __call__(self, image, mask, seed):
        """Returns float32 `(*crop, 3)` and uint8 `(*crop)`; a function of its inputs alone."""
        # Each transform has its own seed, so that one more does not change the others.
        scale_seed, crop_seed, flip_seed, color_seed = tf.unstack(
            tf.random.experimental.stateless_split(seed, 4)
        )
        if self.halve:
            image, mask = transforms.halve(image, mask)
        if self.quarter_turns:  # of the whole image, as a turned crop has another shape
            image, mask = transforms.random_turn(image, mask, fold_in(seed, 1))
        if self.scale != (1.0, 1.0):
            image, mask = transforms.random_scale(image, mask, scale_seed, *self.scale)
        image, mask = self._crop(image, mask, seed, crop_seed)
        if self.flip:
            image, mask = transforms.random_flip(image, mask, flip_seed)
        if self.vertical_flip:
            image, mask = transforms.random_flip(image, mask, fold_in(seed, 2), axis=0)
        image, mask = self._color(tf.cast(image, tf.float32), mask, seed, color_seed)
        if self.cutout:
            image, mask = transforms.random_cutout(image, mask, fold_in(seed, 3), self.cutout)
        return image, mask

    def mix(self, images, masks, seed):
        """What is done to a batch of results: the images and masks, mixed if `cutmix` is set."""
        if not self.cutmix:
            return images, masks
        return transforms.cutmix(images, masks, fold_in(seed, 4), self.cutmix)

    def halved(self) -> Augmentation:
        """The same with image and crop at half the size, a quarter of the pixels."""
        height, width = self.crop
        return dataclasses.replace(
            self,
            halve=True,
            crop=(-(-height // 2), -(-width // 2)),
            elastic=self.elastic / 2,
            blur=self.blur / 2,
        )

    def _crop(self, image, mask, seed, crop_seed):
        """The crop, with rotation, shear and elastic distortion."""
        start, pixel = transforms.random_start(mask, crop_seed, *self.crop), None
        if self.class_crops:
            start, pixel = transforms.class_start(
                mask, fold_in(seed, 5), *self.crop, self.class_crops, start
            )
        if not (self.rotation or self.shear or self.elastic):
            return transforms.crop(image, mask, start, *self.crop)
        matrix = warping.random_affine(fold_in(seed, 6), self.rotation, self.shear)
        displacement = warping.random_displacement(fold_in(seed, 7), *self.crop, self.elastic)
        places = warping.places_of(mask, start, matrix, displacement)
        if pixel is not None:
            places = warping.moved_to(places, pixel)
        return warping.sample(image, mask, places)

    def _color(self, image, mask, seed, color_seed):
        """What changes the image alone, in the order in which a camera would do it."""
        if self.brightness or self.contrast:
            image, mask = colors.random_color(
                image, mask, color_seed, self.brightness, self.contrast
            )
        if self.saturation or self.hue:
            image, mask = colors.random_tint(
                image, mask, fold_in(color_seed, 1), self.saturation, self.hue
            )
        if self.grey:
            image, mask = colors.random_grey(image, mask, fold_in(seed, 8), self.grey)
        if self.blur:
            image, mask = colors.random_blur(image, mask, fold_in(seed, 9), self.blur)
        if self.noise:
            image, mask = colors.random_noise(image, mask, fold_in(seed, 10), self.noise)
        if self.jpeg:
            image, mask = colors.random_jpeg(image, mask, fold_in(seed, 11), self.jpeg)
        return image, mask
