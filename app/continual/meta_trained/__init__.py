"""Algorithms that are meta-trained, then learn long streams; found by themselves. May import learners and all below."""

from app.discovery import import_modules

import_modules(__name__, __path__)
