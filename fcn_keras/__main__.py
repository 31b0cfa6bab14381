"""`python -m fcn_keras`: the command line of whichever Python runs it."""

import sys

from fcn_keras.cli import main

sys.exit(main())
