"""The data sets, one a file, found by themselves. May import their base, files and the core of app."""

from app.discovery import import_modules

import_modules(__name__, __path__)
