"""One run: a network is built, trained and measured."""
