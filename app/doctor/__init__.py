"""Doctor: proves on live data that what is stored agrees with itself, and mends what can be mended safely."""
