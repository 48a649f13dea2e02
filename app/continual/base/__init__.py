"""What continual methods are made of: their protocol, memories, look-ahead steps. May import backbones and all below."""
