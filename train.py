"""Meta-trains, evaluates and deploys learners that learn a new task from a few examples."""

import sys

from app.main import main

if __name__ == "__main__":
    sys.exit(main())
