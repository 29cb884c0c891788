"""`python -m wfc_dist` is `wfc`."""

from wfc_dist.cli import main

if __name__ == "__main__":
    main()
