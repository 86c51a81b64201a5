"""What the stand consists of, one module for each part."""
