"""What is promised of durable runs, held against real disks, real processes and real kills."""
