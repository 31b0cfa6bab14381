"""Networks. Importing this package registers its layers, so that Keras can load files with them."""

from fcn_keras.models import block_upsampling, dilation, normalization, upsampling  # noqa: F401
