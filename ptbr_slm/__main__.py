"""`python -m ptbr_slm`: the same as the `ptbr-slm` command, and what torchrun starts."""

from ptbr_slm.cli.main import main

if __name__ == "__main__":
    main()
