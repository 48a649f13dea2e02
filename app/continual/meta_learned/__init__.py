"""Methods whose numbers are meta-learned on short streams; found by themselves. May import continual and all below."""

from app.discovery import import_modules

import_modules(__name__, __path__)
