"""What a run will take, before it starts: samples, hours, disk, memory; computed, and measured by a few questions."""
