"""`python -m timm_attn.cli`, as torchrun calls it."""

import sys

from timm_attn_command import main

sys.exit(main())
