"""`python -m lowlight` is the same as the `lowlight` command."""

from lowlight.cli import main

if __name__ == "__main__":
    main()
