"""`python -m opensora`, the form that process launchers such as msrun need."""

import sys

from opensora.cli import main

sys.exit(main())
