"""Networks of timm with published weights, which data and backbones share. May import nothing but the core."""
