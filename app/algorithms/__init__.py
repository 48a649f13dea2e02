"""The few-shot algorithms, one a file, found by themselves, in the field's families. May import learners and all below."""

from app.discovery import import_modules

import_modules(__name__, __path__)
