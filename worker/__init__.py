"""Queue -> index: reads, extracts, chunks, embeds and writes, one fenced document at a time."""
