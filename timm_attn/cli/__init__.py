"""The console command `timm-attn`: every verb parses its arguments and calls one library function."""

import argparse
import os
import sys
from collections.abc import Sequence

from timm_attn.cli import models, reports, training, weights

TOPICS = (models, training, weights, reports)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; what the input did not allow becomes one line on stderr and exit status 1."""
    try:
        args = _parser().parse_args(argv)
        args.run(args)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print('timm-attn: interrupted.', file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        print(f'timm-attn: {" ".join(str(error).split())}', file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='timm-attn', description='Attention modules for ConvNets as timm models.')
    verbs = parser.add_subparsers(metavar='VERB', required=True)
    for topic in TOPICS:
        topic.add_verbs(verbs)
    return parser
