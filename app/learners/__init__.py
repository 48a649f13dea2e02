"""What methods are made of: validation and test, the outer step, schedules. May import backbones and all below."""
