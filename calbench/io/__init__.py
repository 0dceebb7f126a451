"""Files in and out: finding and pairing them, reading images, writing whole or not at all."""
