"""Lightning callbacks, one concern a file, known by their names. May import app but its command line and deployment."""

from app.discovery import import_modules

import_modules(__name__, __path__)
