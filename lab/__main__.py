"""`python -m lab`, also under a debugger: `python -m pdb -m lab run parity`."""

import sys

from lab.main import main

if __name__ == "__main__":
    sys.exit(main())
