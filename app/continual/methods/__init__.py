"""The methods that learn within the one stream, one a file, found by themselves. May import continual.base and all below."""

from app.discovery import import_modules

import_modules(__name__, __path__)
