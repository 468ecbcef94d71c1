"""How well the index answers: judged questions through the whole path, for ``headwater evaluate``."""
