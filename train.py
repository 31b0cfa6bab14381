"""Trains a fully convolutional network, like `fcn-keras train`.

python train.py                                        synthetic sample data, in minutes
python train.py --recipe voc2012                       Pascal VOC 2012, as d2l trains it
python train.py --dataset FOLDER                       your own images and masks
python train.py --resume runs/FOLDER                   resume after a stop
python train.py --help                                 every setting
"""

import sys

from fcn_keras.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
